"""The process behind the command: signals and streams are in order before anything else is loaded,
and after everything has ended.
"""

# Nothing but what Python has loaded already: an interruption while modules load must find the
# handler in place.
import os
import signal
import sys


def _leave(signum: int, frame: object) -> None:
    """Ends the process at once; nothing has been begun, or all is done."""
    os.write(2, b"orchestrate: interrupted\n")
    os._exit(130)


def main() -> int:
    """Runs the command of this process's arguments. Returns its exit status."""
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    from orchestrator import cli
    from orchestrator.commands import console

    console.ready()
    try:
        code = cli.main()
    except SystemExit as leaving:
        # argparse, after its usage or help.
        code = leaving.code if isinstance(leaving.code, int) else 2
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    return console.finish(code)


if __name__ == "__main__":
    sys.exit(main())
