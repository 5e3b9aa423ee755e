"""The command `orchestrate`. Exit status: 0 done, 1 some trials failed or wait for answers, 2 bad
input or set-up, 3 another driver has taken over, 4 stopped by the sweep's own limit, 5 the cluster
or the storage was lost (the same command again goes on), 130 interrupted and resumable.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.commands import console, faults, shell

Verb = Callable[[argparse.Namespace], int]

_DEBUG = "on an error, also show the traceback (as does ORCHESTRATE_DEBUG=1)"


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def _plan(args: argparse.Namespace) -> int:
    from orchestrator.catalogue import load_spec
    from orchestrator.commands import plan

    planned = plan.plan(load_spec(args.spec, args.set), like=args.like)
    if args.json:
        _print_json(planned)
    else:
        plan.print_plan(planned)
    return 0


def _keys(args: argparse.Namespace) -> int:
    from orchestrator.catalogue import INSTALLED
    from orchestrator.commands import keys

    return keys.show_keys(args.prefix, INSTALLED, as_json=args.json)


def _engine(args: argparse.Namespace) -> Any:
    from orchestrator.driver import Engine
    from trainers.errors import UserError

    if args.engine == "inline" and (args.address is not None or args.local):
        which = "--address" if args.address is not None else "--local"
        raise UserError(
            f"{which} says which Ray to run on, and --engine inline runs without Ray: leave one of"
            " them out."
        )
    return Engine(
        name=args.engine,
        address=args.address,
        local=args.local,
        verbose=args.verbose,
        insecure=args.insecure,
    )


def _sweep(args: argparse.Namespace) -> int:
    from orchestrator.catalogue import load_spec
    from orchestrator.commands import sweep

    engine = _engine(args)
    cluster = _cluster(args)
    if cluster is not None:
        return _hand_over(args, cluster)
    spec, state = load_spec(args.spec, args.set), os.environ.get("ORCHESTRATE_STATE")
    return sweep.sweep(
        spec,
        engine,
        out=f"{state.rstrip('/')}/{spec.name}" if state and args.out is None else args.out,
        as_json=args.json,
        accept_failures=args.accept_failures,
        retry_failed=args.retry_failed,
    )


def _cluster(args: argparse.Namespace) -> Any:
    """Returns the cluster of this folder's cluster.yaml that the sweep runs on; None where it runs
    on this machine.
    """
    from trainers.errors import UserError

    if args.engine == "inline" or args.local or args.address is not None:
        if args.cluster is not None:
            raise UserError("--cluster is for a sweep on a cluster: leave out what keeps it here.")
        return None
    from orchestrator.commands import remote

    if args.expect is not None:
        remote.check_version(args.expect)
    from orchestrator.catalogue import load_spec

    # A spec that is none is named alone.
    return remote.find(args.cluster, before=lambda: load_spec(args.spec, args.set).name)


def _submit(args: argparse.Namespace) -> int:
    from orchestrator.commands import remote
    from trainers.errors import UserError

    cluster = remote.find(args.cluster)
    if cluster is None:
        raise UserError("no cluster of this folder is up, to hand the sweep to (docs/cluster.md)")
    return _hand_over(args, cluster, wait=False)


def _hand_over(args: argparse.Namespace, cluster: Any, *, wait: bool = True) -> int:
    from orchestrator.commands import remote

    options = [
        *(["--accept-failures"] if args.accept_failures else []),
        *(["--retry-failed", str(args.retry_failed)] if args.retry_failed else []),
        *(["--verbose"] if wait and args.verbose else []),
        *(["--insecure"] if args.insecure else []),
    ]
    return remote.sweep(
        cluster,
        args.spec,
        args.set,
        options,
        out=args.out,
        wait=wait,
        as_json=wait and args.json,
        insecure=args.insecure,
    )


def _logs(args: argparse.Namespace) -> int:
    from orchestrator.commands import remote

    return remote.logs(args.name, as_json=args.json)


def _stop(args: argparse.Namespace) -> int:
    from orchestrator.commands import remote

    return remote.stop(args.name)


def _check_goes_on_here(verb: str, args: argparse.Namespace) -> None:
    if args.engine != "inline" and not args.local and args.address is None and "://" in args.dir:
        from orchestrator.commands import submissions

        submissions.check_goes_on_here(verb, args.dir)


def _resume(args: argparse.Namespace) -> int:
    from orchestrator.commands import sweep

    _check_goes_on_here("resume", args)
    return sweep.resume(
        args.dir,
        _engine(args),
        args.set,
        as_json=args.json,
        accept_failures=args.accept_failures,
        retry_failed=args.retry_failed,
    )


def _retry(args: argparse.Namespace) -> int:
    from orchestrator.commands import sweep

    _check_goes_on_here("retry", args)
    return sweep.retry(args.dir, _engine(args), args.set, as_json=args.json)


def _extend(args: argparse.Namespace) -> int:
    from orchestrator.commands import sweep

    _check_goes_on_here("extend", args)
    return sweep.extend(args.dir, args.num_candidates, _engine(args), args.set, as_json=args.json)


def _status(args: argparse.Namespace) -> int:
    from orchestrator.commands import status

    if "://" not in args.dir and not Path(args.dir, "resolved.yaml").exists():
        from orchestrator.commands import remote, submissions

        note = submissions.submitted(args.dir)
        if note is not None and (note.is_within_reach() or "://" not in note.place):
            return remote.status(note, as_json=args.json)
        if note is not None:
            print(f"its cluster is not up; from its records in {note.place}:", file=sys.stderr)
            return status.show(note.place, watch=False, as_json=args.json, job="ended")
    if not args.watch:
        return status.show(args.dir, watch=False, as_json=args.json, job=args.job)
    console.stop_when_nobody_reads()
    try:
        return status.show(args.dir, watch=True, as_json=args.json)
    except BrokenPipeError:
        return 0


def _report(args: argparse.Namespace) -> int:
    from orchestrator.commands import report

    return report.show(args.dir, as_json=args.json)


def _ledger(args: argparse.Namespace) -> int:
    from orchestrator.commands import ledger as ledger_verbs

    verb: Callable[..., int] = getattr(ledger_verbs, args.action)
    return verb(args.dir, as_json=args.json)


def _data(args: argparse.Namespace) -> int:
    from orchestrator.commands import data as data_verbs

    if args.action == "list":
        return data_verbs.list_sets(as_json=args.json)
    return data_verbs.prepare_set(
        args.name, args.path, args.image_size, args.set, to=args.to, as_json=args.json
    )


def _doctor(args: argparse.Namespace) -> int:
    from orchestrator.commands import doctor

    if args.cluster is not None:
        return doctor.of_cluster(file=args.cluster, out=args.out, as_json=args.json)
    return doctor.doctor(out=args.out or "runs", with_ray=not args.no_ray, as_json=args.json)


class _Parser(argparse.ArgumentParser):
    """argparse repeats what was typed as it is; a terminal would obey it."""

    def error(self, message: str) -> NoReturn:
        super().error(console.escaped(message))


def _add(
    verbs: Any, name: str, run: Verb | None, text: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    # Its absence after the verb must not undo its presence before.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=_DEBUG)
    return parser


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object on standard output; progress and messages go to standard error",
    )


def _spec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "spec",
        metavar="SPEC",
        help=(
            "a spec file; a bare name is looked up here, then among the packaged ones"
            " (ablations.yaml, smoke.yaml, ...)"
        ),
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key of the spec, as in method.epochs=5; may be repeated",
    )


def _resource_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=(
            "where the data lies now (dataset.path), or for this run another"
            " resources.max_concurrent, start_timeout, max_failures, max_preemptions,"
            " checkpoint_seconds, max_hours, max_gpu_hours or price_per_hour"
        ),
    )


def _engine_arguments(parser: argparse.ArgumentParser, *, begun: bool = True) -> None:
    """Adds where to run. `begun`: the sweep has been begun, on an engine that is on record."""
    parser.add_argument(
        "--engine",
        choices=["ray", "inline"],
        default=None if begun else "ray",
        help="inline: one trial after another in this process, without Ray (default: "
        + ("what the sweep was begun on)" if begun else "ray)"),
    )
    parser.add_argument(
        "--address",
        help=(
            "the Ray to run on (default: $RAY_ADDRESS, else a node running here, else an embedded"
            " Ray)"
        ),
    )
    parser.add_argument(
        "--local", action="store_true", help="an embedded Ray at once, whatever else is running"
    )
    parser.add_argument("--verbose", action="store_true", help="also show what Ray itself prints")
    _insecure_flag(parser)


def _insecure_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="this once, also on a Ray that asks for no access token",
    )


def _failure_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retry-failed",
        type=_count,
        default=0,
        metavar="N",
        help="run failed trials again, each up to N times in this run (default: 0)",
    )
    parser.add_argument(
        "--accept-failures",
        action="store_true",
        help="exit status 0, not 1, where trials have failed and all others are finished",
    )


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the whole command line."""
    parser = _Parser(
        prog="orchestrate",
        description=(
            "Find the labelling schedule that wins at equal bits: full labels, yes/no answers,"
            " stages and quotas."
        ),
        epilog="example:\n  orchestrate plan ablations.yaml\n  orchestrate sweep ablations.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help=_DEBUG)
    parser.add_argument(
        "--version", action=shell.PrintVersion, nargs=0, help="print the version and exit"
    )
    parser.add_argument(
        "--print-completion",
        action=shell.PrintCompletion,
        choices=shell.SHELLS,
        metavar="SHELL",
        help=f"print the script by which a shell completes words ({', '.join(shell.SHELLS)})",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    plan = _add(
        verbs,
        "plan",
        _plan,
        "list every trial of a spec with its price; trains nothing",
        "orchestrate plan ablations.yaml",
    )
    _spec_arguments(plan)
    plan.add_argument(
        "--like",
        metavar="DIR",
        type=_location,
        help="estimate hours of training, and their price, by the times on record in that sweep",
    )
    _json_flag(plan)

    keys = _add(
        verbs,
        "keys",
        _keys,
        "list every key of a spec: what it may hold, its default and its meaning",
        "orchestrate keys method",
    )
    keys.add_argument(
        "prefix",
        metavar="PREFIX",
        nargs="?",
        default="",
        help="only keys that begin so, as in query or method.epochs",
    )
    keys.add_argument(
        "--json",
        action="store_true",
        help="a JSON schema of specs, for editors: orchestrate keys --json > spec.schema.json",
    )

    sweep = _add(
        verbs,
        "sweep",
        _sweep,
        "run a spec",
        "orchestrate sweep ablations.yaml --set method.epochs=10 --out runs/short",
    )
    _spec_arguments(sweep)
    _engine_arguments(sweep, begun=False)
    sweep.add_argument("--expect", help=argparse.SUPPRESS)
    _json_flag(sweep)
    submit = _add(
        verbs,
        "submit",
        _submit,
        "hand a sweep to a cluster and do not wait for it",
        "orchestrate submit ablations.yaml",
    )
    _spec_arguments(submit)
    _insecure_flag(submit)
    for verb in (sweep, submit):
        verb.add_argument(
            "--out",
            metavar="DIR",
            type=_location,
            help="the sweep's own folder (default: runs/<name>)",
        )
        verb.add_argument(
            "--cluster",
            metavar="FILE",
            help=(
                "run on the cluster that `ray up FILE` brought up from this machine (default:"
                " cluster.yaml or cluster.local.yaml of this folder, if it is up)"
            ),
        )
        _failure_arguments(verb)

    for name, run, text in (
        ("logs", _logs, "show the progress of a sweep on a cluster, to its end"),
        ("stop", _stop, "stop a sweep on a cluster; the same `sweep` command goes on with it"),
    ):
        verb = _add(verbs, name, run, text, f"orchestrate {name} ablations")
        verb.add_argument(
            "name", metavar="NAME", help="of a sweep that was submitted from this machine"
        )
        if name == "logs":
            _json_flag(verb)

    for name, run, text in (
        (
            "resume",
            _resume,
            ("resume a sweep that was stopped or killed; nothing already answered is asked again"),
        ),
        (
            "retry",
            _retry,
            (
                "run the failed trials of a sweep again, from their last checkpoint, and whatever"
                " else is unfinished"
            ),
        ),
    ):
        verb = _add(verbs, name, run, text, f"orchestrate {name} runs/ablations")
        verb.add_argument("dir", metavar="DIR", type=_location, help="the sweep's folder")
        _resource_argument(verb)
        _engine_arguments(verb)
        if name == "resume":
            _failure_arguments(verb)
        _json_flag(verb)

    extend = _add(
        verbs,
        "extend",
        _extend,
        "add candidates to a search",
        "orchestrate extend runs/search -n 20",
    )
    extend.add_argument("dir", metavar="DIR", type=_location, help="the sweep's folder")
    extend.add_argument(
        "-n",
        "--num-candidates",
        type=_positive,
        required=True,
        metavar="N",
        help="how many more candidates",
    )
    _resource_argument(extend)
    _engine_arguments(extend)
    _json_flag(extend)

    status = _add(
        verbs,
        "status",
        _status,
        "show trials and stages with bits, accuracy and time to go",
        "orchestrate status runs/ablations --watch",
    )
    status.add_argument("dir", metavar="DIR", type=_location, help="the sweep's folder")
    status.add_argument("--job", choices=("running", "ended"), help=argparse.SUPPRESS)
    status.add_argument(
        "--watch", action="store_true", help="show it anew every two seconds until the sweep ends"
    )
    _json_flag(status)

    report = _add(
        verbs,
        "report",
        _report,
        "write and show the table: Markdown, CSV, JSON, a picture and one offline HTML file",
        "orchestrate report runs/ablations",
    )
    report.add_argument("dir", metavar="DIR", type=_location, help="the sweep's folder")
    _json_flag(report)

    _ledger_verbs(verbs)
    _data_verbs(verbs)

    doctor = _add(
        verbs,
        "doctor",
        _doctor,
        "say what is missing on this machine, and how to fix it",
        "orchestrate doctor --no-ray",
    )
    doctor.add_argument(
        "--out",
        metavar="DIR",
        type=_location,
        help="where sweeps will be written (default: runs; on a cluster $ORCHESTRATE_STATE)",
    )
    doctor.add_argument(
        "--cluster",
        nargs="?",
        const="",
        metavar="FILE",
        help=(
            "say it of every machine of a running cluster: the one that this machine is a node of,"
            " or that `ray up FILE` brought up (default: cluster.yaml or cluster.local.yaml of this"
            " folder); of a FILE that is not up, what `ray up` would lack"
        ),
    )
    doctor.add_argument(
        "--no-ray", action="store_true", help="skip starting Ray, which takes some seconds"
    )
    _json_flag(doctor)
    return parser


def _ledger_verbs(verbs: Any) -> None:
    ledger = _add(
        verbs,
        "ledger",
        None,
        "read the answers of a trial",
        "orchestrate ledger verify runs/ablations/trials/0123456789ab",
    )
    actions = ledger.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        (
            "show",
            (
                "list every label bought and every question with its answer; of a sweep, where the"
                " ledger of each trial is"
            ),
        ),
        (
            "verify",
            (
                "check everything in a sweep's folder against everything else in it, or the"
                " checksum chain of one trial's segments"
            ),
        ),
        ("replay", "rebuild the pool from the segments alone and print its state"),
    ):
        whole = name != "replay"
        action = _add(
            actions,
            name,
            _ledger,
            text,
            f"orchestrate ledger {name} runs/ablations{'' if whole else '/trials/0123456789ab'}",
        )
        help_text = (
            "the sweep's folder, or one trial's, DIR/trials/ID"
            if whole
            else "the trial's folder, DIR/trials/ID"
        )
        action.add_argument(
            "dir", metavar="DIR" if whole else "TRIAL_DIR", type=_location, help=help_text
        )
        _json_flag(action)


def _data_verbs(verbs: Any) -> None:
    data = _add(
        verbs,
        "data",
        None,
        "list data sets and prepare their decoded cache",
        "orchestrate data list",
    )
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _add(
        actions, "list", _data, "list the data sets and what is prepared", "orchestrate data list"
    )
    _json_flag(listing)
    prepare = _add(
        actions,
        "prepare",
        _data,
        "decode a data set into the cache",
        "orchestrate data prepare folder --path photos/",
    )
    prepare.add_argument("name", metavar="NAME", help="as `dataset.name` in a spec")
    prepare.add_argument(
        "--path", help="folder, file or s3:// address, as `dataset.path` in a spec"
    )
    prepare.add_argument(
        "--to",
        type=_location,
        metavar="PLACE",
        help="also put it, labels too, below this folder or address for other machines",
    )
    prepare.add_argument(
        "--image-size",
        type=_positive,
        metavar="PX",
        help="side of the square that images are cut to, as `dataset.image_size` in a spec",
    )
    prepare.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another setting of the data set, as in dataset.classes=5; may be repeated",
    )
    _json_flag(prepare)


def _location(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name of a folder is empty")
    from orchestrator.storage.files import StorageError
    from orchestrator.storage.opening import check_location

    try:
        check_location(text)
    except StorageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


_signalled = threading.Event()


def _take_over_signals() -> None:
    """Handles signals: the first SIGINT or SIGTERM stops in good order, the second exits at once. A
    sweep can be resumed after both.
    """
    _signalled.clear()

    def interrupt(signum: int, frame: object) -> NoReturn:
        if _signalled.is_set():
            os._exit(130)
        _signalled.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; whatever goes wrong is one message on standard
    error.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(words)
    debug = faults.debug_wanted(args.debug)
    command = shlex.join(["orchestrate", *words])
    _take_over_signals()
    faults.watch_threads(debug=debug)
    try:
        run: Verb = args.run
        return run(args)
    except BaseException as error:
        return faults.report_error(error, command, debug=debug, interrupted=_signalled.is_set())
