"""What the process prints reaches any terminal, any pipe and nobody at all, and never ends the work
that it tells of.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.commands.console import escaped

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}
SHORT = ("--engine", "inline", "--set", "method.epochs=1", "--set", "seeds=[0]")


def _shell(line: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """A line of a shell in which `orchestrate` is the command of this checkout."""
    script = f'orchestrate() {{ "{sys.executable}" -m orchestrator "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script], env=os.environ | env, capture_output=True, timeout=240
    )


def _python(code: str, encoding: str = "utf-8", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | env,
        capture_output=True,
        encoding=encoding,
        timeout=120,
    )


@pytest.mark.parametrize("env", [ASCII, LATIN], ids=["ascii", "latin-1"])
def test_a_terminal_without_our_signs_gets_others(env: dict[str, str], tmp_path: Path) -> None:
    ended = _shell(
        f"orchestrate sweep smoke.yaml {' '.join(SHORT)} --out {tmp_path}/run; echo exit $?", **env
    )
    assert b"Traceback" not in ended.stderr
    assert ended.stdout.splitlines()[-1] == b"exit 0"
    assert b"smoke" in ended.stdout
    if env is ASCII:
        assert max(ended.stdout + ended.stderr) < 128


def test_what_has_no_plain_form_is_printed_as_its_escape() -> None:
    ended = _python(
        "from orchestrator.commands import console; console.ready(); print('a \\xb7 b \\u2013 3"
        " \\xb1 1 \\u2192 \\u0142 \\u65e5')",
        **ASCII,
    )
    assert ended.stdout == "a - b - 3 +/- 1 -> \\u0142 \\u65e5\n"
    ended = _python(
        "from orchestrator.commands import console; console.ready(); print('a \\xb7 b \\u2013 1"
        " \\u0142')",
        "latin-1",
        PYTHONIOENCODING="latin-1:strict",
    )
    assert ended.stdout == "a \xb7 b - 1 \\u0142\n", "a sign that the terminal has stays"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_failure_and_no_file_takes_their_place(
    closed: str, tmp_path: Path
) -> None:
    ended = _shell(
        f"orchestrate sweep smoke.yaml {' '.join(SHORT)} --out {tmp_path}/run {closed}; exit $?"
    )
    assert ended.returncode == 0, ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b"Exception" not in ended.stderr
    records = [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".json", ".jsonl")]
    assert records
    assert all(path.read_bytes().startswith((b"{", b"[")) for path in records), (
        "a record took in what was printed"
    )


@pytest.mark.parametrize(
    "words", ["data list", "plan smoke.yaml", "plan smoke.yaml --json", "--help", "sweep --help"]
)
def test_a_reader_that_stops_early_is_no_failure(words: str) -> None:
    ended = _shell(f"orchestrate {words} | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == b""


def test_a_sweep_goes_on_when_nobody_reads_its_progress_and_ends_as_it_ends(tmp_path: Path) -> None:
    ended = _shell(
        f"orchestrate sweep smoke.yaml {' '.join(SHORT)} --out {tmp_path}/run 2>&1 | true; exit"
        " ${PIPESTATUS[0]}"
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "report" / "report.html").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_is_said() -> None:
    ended = _shell("orchestrate plan smoke.yaml --json > /dev/full; exit $?")
    assert ended.returncode == 2
    assert b"No space left on device" in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b"Exception ignored" not in ended.stderr


def test_the_watch_ends_with_its_reader() -> None:
    """The one command that only shows: with nobody to show it to, there is nothing left to do."""
    code = (
        "import sys, time\n"
        "from orchestrator import cli\nfrom orchestrator.commands import status\n"
        "def forever(*args, **named):\n"
        "    while True: print('still at it', flush=True); time.sleep(0.01)\n"
        "status.show = forever\n"
        "from orchestrator.__main__ import main\n"
        "sys.argv = ['orchestrate', 'status', 'x', '--watch']\n"
        "sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""


def test_a_warning_is_one_line_without_its_place_in_a_library() -> None:
    code = (
        "from orchestrator.commands import console; console.ready(); import warnings;"
        " warnings.warn('two\\nlines \\x1b[31m', UserWarning)"
    )
    ended = _python(code)
    assert ended.stderr == "orchestrate: warning: two lines \\x1b[31m\n"


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b]0;title\x07", "\x9b31m", "\u202e\u2066", "\udcff\r\b"]
)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    safe = escaped(f"first{text}\nsecond – ±")
    assert safe.isprintable() is False and safe.replace("\n", "").isprintable()
    assert safe.startswith("first\\")
    assert safe.endswith("\nsecond – ±")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_modules_load_is_no_traceback(number: signal.Signals) -> None:
    code = (
        "import builtins, os, sys\n"
        "import orchestrator.__main__ as process\n"
        "load = builtins.__import__\n"
        "def interrupted(name, *rest, **named):\n"
        f"    if name == 'argparse': os.kill(os.getpid(), {int(number)})\n"
        "    return load(name, *rest, **named)\n"
        "builtins.__import__ = interrupted\n"
        "sys.exit(process.main())"
    )
    ended = _python(code)
    assert ended.returncode == 130
    assert ended.stderr == "orchestrate: interrupted\n"


def test_an_interruption_while_a_library_loads_is_no_traceback(tmp_path: Path) -> None:
    """Some turn it into an ImportError of theirs."""
    code = (
        "import os, signal, sys, time\n"
        "from orchestrator.commands import plan\n"
        "def loads(found):\n"
        "    try: os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
        "    except KeyboardInterrupt: raise ImportError('the compiled part cannot be loaded')\n"
        "plan.print_plan = loads\n"
        "from orchestrator.__main__ import main\n"
        "sys.argv = ['orchestrate', 'plan', 'smoke.yaml']\n"
        "sys.exit(main())"
    )
    began = time.monotonic()
    ended = _python(code)
    assert ended.returncode == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - began < 60
