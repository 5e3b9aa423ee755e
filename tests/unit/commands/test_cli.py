"""The command line: every verb is explained, and bad input is answered with a message, never a
traceback.
"""

from __future__ import annotations

import argparse
import errno
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import cli

ROOT = Path(__file__).resolve().parents[3]

VERBS = {
    "plan",
    "keys",
    "sweep",
    "resume",
    "retry",
    "extend",
    "status",
    "report",
    "ledger",
    "data",
    "doctor",
    "logs",
    "stop",
    "submit",
}


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _commands() -> dict[str, argparse.ArgumentParser]:
    """Every verb, and every action of a verb, by its words."""
    verbs = _subparsers(cli.build_parser())
    return verbs | {
        f"{verb} {action}": parser
        for verb, of in verbs.items()
        for action, parser in _subparsers(of).items()
    }


@pytest.fixture(autouse=True)
def signals_stay_ours() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: an exception that gets out would have been a traceback."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as leaving:
            # argparse leaves this way, with its usage on standard error.
            assert isinstance(leaving.code, int)
            code = leaving.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


Run = Callable[..., tuple[int, str, str]]


def _refused(run: Run, *words: str | Path) -> str:
    code, _, err = run(*words)
    assert code == 2, f"{words}: exit {code}\n{err}"
    assert err.startswith(("orchestrate: ", "usage: "))
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("command", _commands())
def test_every_verb_and_action_has_help_with_an_example_of_itself(command: str) -> None:
    text = _commands()[command].format_help()
    example = text.partition("example:\n  ")[2].splitlines()
    assert example, f"{command} shows no example"
    assert example[0].startswith(f"orchestrate {command.split()[0]}")
    if not _subparsers(_commands()[command]):
        assert example[0].startswith(f"orchestrate {command}")


def _examples() -> list[str]:
    return [
        line.strip()
        for parser in _commands().values()
        for line in parser.format_help().partition("example:\n")[2].splitlines()
    ]


@pytest.mark.parametrize("example", sorted(set(_examples())))
def test_every_example_is_a_command_that_the_parser_takes(example: str) -> None:
    assert cli.build_parser().parse_args(example.split()[1:]).verb == example.split()[1]


def test_help_lists_exactly_the_verbs_that_exist(run: Run) -> None:
    code, out, _ = run("--help")
    listed = set(re.findall(r"^    (\w+)", out, flags=re.MULTILINE))
    assert code == 0
    assert listed == VERBS == set(_subparsers(cli.build_parser()))


def test_help_promises_nothing_that_is_not_there_yet() -> None:
    everything = cli.build_parser().format_help() + "".join(
        parser.format_help() for parser in _commands().values()
    )
    assert not re.search(r"\b(annotat\w*|human)\b", everything.replace("annotation hours", ""))


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_is_named_in_the_readme(verb: str) -> None:
    assert re.search(rf"orchestrate {verb}\b", (ROOT / "README.md").read_text(encoding="utf-8")), (
        f"README.md does not show `orchestrate {verb}`"
    )


def _pages() -> list[Path]:
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def _commands_shown() -> list[str]:
    """The commands in the blocks of the pages that a user copies from."""
    return [
        line.partition("#")[0].strip()
        for page in (ROOT / "README.md", ROOT / "docs" / "guide.md")
        for block in re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("orchestrate ")
    ]


@pytest.mark.parametrize("command", _commands_shown())
def test_a_command_that_is_shown_is_one_that_is_taken(command: str) -> None:
    arguments = cli.build_parser().parse_args(shlex.split(command)[1:])
    if "spec" in arguments:
        assert (ROOT / "search_spaces" / arguments.spec).is_file()


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    dead = [
        target
        for target in targets
        if not re.match(r"[a-z]+:|#", target)
        and not (page.parent / target.partition("#")[0]).exists()
    ]
    assert not dead


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["swep"],
        ["sweep"],
        ["extend", "x"],
        ["extend", "x", "-n", "0"],
        ["ledger"],
        ["ledger", "shw", "x"],
        ["data", "list", "x"],
    ],
)
def test_a_command_that_is_not_one_is_refused_with_its_usage(run: Run, words: list[str]) -> None:
    assert "usage: " in _refused(run, *words)


READERS = (
    ["status"],
    ["status", "--json"],
    ["report"],
    ["resume"],
    ["retry"],
    ["extend", "-n", "1"],
    ["ledger", "show"],
    ["ledger", "verify"],
    ["ledger", "replay"],
)


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_a_folder_that_holds_nothing_of_ours_is_refused_by_name(
    run: Run, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in (
        tmp_path / "missing",
        file,
        file / "below",
        empty,
        Path("/proc/self/missing"),
        Path("/root/../proc/1/fd"),
    ):
        assert str(place) in _refused(run, *words, place)
    assert list(empty.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"file", "empty"}


def test_an_out_that_cannot_be_written_is_refused_before_anything_runs(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    for out in (
        file,
        file / "below",
        Path("/proc/nothing"),
        Path("/proc/self/nothing"),
        Path("/sys/nothing"),
        Path("/dev/null/x"),
    ):
        assert str(out) in _refused(run, "sweep", "smoke.yaml", "--engine", "inline", "--out", out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    assert "--out" in _refused(
        run, "sweep", "smoke.yaml", "--engine", "inline", "--out", tmp_path / "full"
    )
    assert (tmp_path / "full" / "thesis.tex").read_text() == "years of work"


def test_a_sweep_that_cannot_run_here_is_refused_and_leaves_no_folder(
    run: Run, tmp_path: Path
) -> None:
    words = ["smoke.yaml", "--engine", "inline", "--set", "resources.cpus_per_worker=999"]
    said = _refused(run, "sweep", *words, "--out", tmp_path / "new")
    assert "needs 999 CPU(s), and this process may use" in said
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_refused_before_its_first_label_does_not_stand_in_the_way_of_the_next(
    run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    assert "127.0.0.1:1" in _refused(
        run, "sweep", "smoke.yaml", "--address", "127.0.0.1:1", "--out", out
    )
    quick = ["--engine", "inline", "--set", "method.epochs=1", "--set", "seeds=[0]", "--out", out]
    assert run("sweep", "smoke.yaml", *quick)[0] == 0
    assert "already holds another sweep" in _refused(
        run, "sweep", "smoke.yaml", *quick, "--set", "method.epochs=2"
    )


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_a_sweep_goes_on_where_it_was_begun(
    run: Run, finished: Path, tmp_path: Path, verb: str
) -> None:
    begun = tmp_path / "begun"
    shutil.copytree(finished, begun)
    next(begun.glob("trials/*/stages/0002.json")).unlink()
    code, _, said = run(verb, begun)
    assert code == 0 and said.count("inline: one process on this machine") == 1
    # Where it is said which Ray, that one is meant.
    next(begun.glob("trials/*/stages/0002.json")).unlink()
    assert "127.0.0.1:1" in _refused(run, verb, begun, "--address", "127.0.0.1:1")


def test_a_sweep_goes_on_under_other_limits_but_not_other_settings(
    run: Run, finished: Path
) -> None:
    before = (finished / "resolved.yaml").read_bytes()
    for setting in (
        "resources.max_concurrent=1",
        "resources.start_timeout=5",
        "resources.max_failures=0",
        "resources.checkpoint_seconds=9",
    ):
        for verb in ("resume", "retry"):
            assert run(verb, finished, "--engine", "inline", "--set", setting)[0] == 0
    for setting in (
        "resources.workers=2",
        "method.epochs=7",
        "seeds=[5]",
        "search.num_candidates=3",
        "resources.max_concurrent=0",
    ):
        _refused(run, "resume", finished, "--engine", "inline", "--set", setting)
    assert (finished / "resolved.yaml").read_bytes() == before


def test_an_empty_name_is_no_folder(run: Run) -> None:
    assert "the name of a folder is empty" in _refused(
        run, "sweep", "smoke.yaml", "--engine", "inline", "--out", ""
    )


def test_data_that_need_no_path_take_none_and_others_ask_for_it(run: Run, tmp_path: Path) -> None:
    assert f"--path {tmp_path}" in _refused(run, "data", "prepare", "digits", "--path", tmp_path)
    assert "--path" in _refused(run, "data", "prepare", "folder")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00binary",
        b"[1, 2]",
        b"just words",
        b"name: x\nname: y\n",
        b"a: [",
        b"!!python/object:os.system {}",
    ],
)
def test_a_spec_that_is_none_is_refused_by_name(run: Run, tmp_path: Path, content: bytes) -> None:
    spec = tmp_path / "odd.yaml"
    spec.write_bytes(content)
    for verb in ("plan", "sweep"):
        assert str(spec) in _refused(run, verb, spec)


@pytest.mark.parametrize("verb", ["plan", "sweep"])
@pytest.mark.parametrize(
    "setting",
    [
        "",
        "x",
        "=",
        "method.epochs",
        "method.epochs=",
        "method.epochs=[",
        "no.such.key=1",
        "seeds=1",
        "resources.workers=-1",
    ],
)
def test_an_override_that_is_none_is_refused(run: Run, verb: str, setting: str) -> None:
    _refused(run, verb, "smoke.yaml", "--set", setting)


def test_a_spec_that_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    for spec in (tmp_path / "missing.yaml", tmp_path, "no_such_spec.yaml", ""):
        for verb in ("plan", "sweep"):
            _refused(run, verb, spec)


def test_a_data_set_that_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    for words in (
        ["nothing"],
        ["folder"],
        ["folder", "--path", tmp_path],
        ["features", "--path", tmp_path / "x.npz"],
        ["cifar10", "--path", tmp_path],
    ):
        _refused(run, "data", "prepare", *words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep that ran to its end."""
    root = tmp_path_factory.mktemp("cli") / "sweep"
    short = ["--set", "method.epochs=1", "--set", "seeds=[0]"]
    assert cli.main(["sweep", "smoke.yaml", "--engine", "inline", "--out", str(root), *short]) == 0
    return root


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(b"\x00\xff\xfegarbage\n{\n")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _of_another_kind(path: Path) -> None:
    path.write_text('[1]\n{}\n"text"\n')


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = (_empty, _garbage, _half, _of_another_kind, _folder)
FILES = (
    "candidates/*.json",
    "resolved.yaml",
    "spec.yaml",
    "manifest.json",
    "trials/*/stages/*.json",
    "seal.json",
    "trials/*/error.json",
    "stages/*/record.json",
    "stages/*/scores-*.npy",
    "trials/*/ledger/0000.parquet",
    "trials/*/ledger/0001.parquet",
)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_sweep_is_read_or_refused_but_never_breaks(
    run: Run, finished: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    root = tmp_path / "sweep"
    shutil.copytree(finished, root)
    if name.endswith("error.json"):
        (sorted((root / "trials").iterdir())[-1] / "error.json").write_text(
            json.dumps({"stage": 1, "kind": "TrainingFailed", "message": "NaN"})
        )
    victim = sorted(root.glob(name))[-1]
    damage(victim)
    trial = victim.parent.parent if "ledger" in name else sorted((root / "trials").iterdir())[-1]
    for words in (
        ["status", root],
        ["status", "--json", root],
        ["report", root],
        ["report", "--json", root],
        ["ledger", "show", trial],
        ["ledger", "replay", trial],
    ):
        code, out, err = run(*words)
        assert code in (0, 1, 2), words
        assert "Traceback" not in err
        assert code == 0 or err or out
        if "--json" in words and code < 2:
            json.loads(out)
    if "ledger" in name:
        assert victim.name in _refused(run, "ledger", "verify", trial)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize(
    "name",
    [
        "candidates/*.json",
        "resolved.yaml",
        "spec.yaml",
        "manifest.json",
        "seal.json",
        "trials/*/stages/*.json",
    ],
)
@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_a_damaged_sweep_is_not_gone_on_with_by_guessing(
    run: Run, finished: Path, tmp_path: Path, verb: str, name: str, damage: Callable[[Path], None]
) -> None:
    root = tmp_path / "sweep"
    shutil.copytree(finished, root)
    victim = sorted(root.glob(name))[-1]
    damage(victim)
    ledgers = {path: path.read_bytes() for path in root.glob("trials/*/ledger/*.parquet")}
    code, _, err = run(verb, "--engine", "inline", root)
    assert "Traceback" not in err
    assert code == 2, "what is damaged is said, and nothing goes on"
    assert victim.name in err
    # Whatever is made of it, nothing is bought anew.
    assert {path: path.read_bytes() for path in root.glob("trials/*/ledger/*.parquet")} == ledgers


class Hostile(Exception):
    """Whose text carries what a terminal obeys."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("bits"), "this is a defect of orchestrate"),
        (AssertionError(), "AssertionError"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError"),
        (UnicodeEncodeError("ascii", "·", 0, 1, "ordinal not in range"), "defect"),
        (Hostile("\x1b[2J"), "\\x1b[2J"),
        (SystemExit(1), "defect"),
        (RuntimeError("Could not determine home directory."), "has no home folder"),
        (MemoryError(), "needs more memory"),
        (
            ModuleNotFoundError("No module named 'optuna'", name="optuna"),
            "the package optuna is not installed",
        ),
        (OSError(errno.EIO, "Input/output error"), "orchestrate plan smoke.yaml"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/full/file"),
            "/full/file: No space left on device",
        ),
        (
            OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, "/b"),
            "/a -> /b: Invalid cross-device link",
        ),
        (TimeoutError("waited in vain"), "waited in vain"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_is_left_is_one_message_and_a_traceback_on_demand_only(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    from orchestrator.commands import plan

    def fail(found: object) -> None:
        raise error

    monkeypatch.setattr(plan, "print_plan", fail)
    monkeypatch.delenv("ORCHESTRATE_DEBUG", raising=False)
    err = _refused(run, "plan", "smoke.yaml")
    assert said in err
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert "the system:" not in err
    assert ("Please report it" in err) == ("defect" in err)
    for words in (
        ["--debug", "plan", "smoke.yaml"],
        ["plan", "--debug", "smoke.yaml"],
        ["plan", "smoke.yaml", "--debug"],
    ):
        code, _, err = run(*words)
        assert code == 2
        assert "Traceback" in err
        assert "in fail" in err
    monkeypatch.setenv("ORCHESTRATE_DEBUG", "1")
    assert "Traceback" in run("plan", "smoke.yaml")[2]
    monkeypatch.setenv("ORCHESTRATE_DEBUG", "0")
    assert "Traceback" not in run("plan", "smoke.yaml")[2]


@pytest.mark.parametrize(
    "command", [command for command, parser in _commands().items() if not _subparsers(parser)]
)
def test_every_command_takes_debug(command: str) -> None:
    assert "--debug" in _commands()[command].format_help()


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        f"import os, sys, runpy; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r});"
        f" sys.path.insert(0, {str(ROOT)!r}); "
    )
    code += "from orchestrator import cli; sys.exit(cli.main(['report', 'runs/x']))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "the system:" not in ended.stderr


@pytest.mark.parametrize("name", ["gs://bucket", "file:///tmp/x", "GS://b/x"])
@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "smoke.yaml", "--engine", "inline", "--out"],
        ["resume"],
        ["retry"],
        ["extend", "-n", "1"],
        ["status"],
        ["report"],
        ["doctor", "--no-ray", "--out"],
    ]
    + [["ledger", action] for action in ("show", "verify", "replay")],
    ids=lambda words: " ".join(words[:2]),
)
def test_an_address_is_no_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is an address and not a folder" in _refused(run, *words, name)
    assert list(tmp_path.iterdir()) == []


def test_what_a_name_carries_is_printed_and_not_obeyed(run: Run, tmp_path: Path) -> None:
    for words in (
        ["report", f"{tmp_path}/\x1b[31mred"],
        ["\x1b[31mred"],
        ["plan", "smoke.yaml", "\x1b[31mred"],
        ["plan", "\x1b[31mred.yaml"],
    ):
        err = _refused(run, *words)
        assert "\x1b" not in err
        assert "[31mred" in err
