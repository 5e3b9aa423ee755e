"""What is said of an error that ends a command: one message that says what to do, and the exit
status. The last line of defence; nothing passes it.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Final

from orchestrator.commands.console import escaped
from trainers.errors import UserError

KEPT: Final = "What was recorded before is kept."


def debug_wanted(flag: bool) -> bool:
    """Whether tracebacks are shown: `--debug`, or ORCHESTRATE_DEBUG set to anything but 0."""
    return flag or os.environ.get("ORCHESTRATE_DEBUG", "0") not in ("", "0")


def report_error(
    error: BaseException, command: str, *, debug: bool, interrupted: bool = False
) -> int:
    """Says on standard error why `command` (as it was typed) ended. Returns the exit status.

    Args:
        interrupted: a signal asked this process to stop; libraries turn the interruption into
            errors of their own.
    """
    if interrupted or isinstance(error, KeyboardInterrupt):
        _say("interrupted; everything answered and trained so far is kept", error, debug=debug)
        return 130
    _say(message(error, command), error, debug=debug)
    return error.exit_status if isinstance(error, UserError) else 2


def _say(text: str, error: BaseException, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    print(f"orchestrate: {escaped(text)}", file=sys.stderr)


def watch_threads(*, debug: bool) -> None:
    """Reports an error that ends a thread like one that ends the command, which continues."""

    def tell(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
            _say(
                f"in the background: {message(ended.exc_value, 'orchestrate')}",
                ended.exc_value,
                debug=debug,
            )

    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = tell


def message(error: BaseException, command: str) -> str:
    """What to tell the user of this error."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{_of_system(error, command)} {KEPT}"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return (
            "this user, or the one that a path names by ~, has no home folder. Write the path"
            " without ~, or: export HOME=/a/folder/you/may/write"
        )
    if isinstance(error, MemoryError):
        return (
            f"`{command}` needs more memory than this machine has free. Free some, or run it on a"
            f" larger one. {KEPT}"
        )
    if (
        isinstance(error, ModuleNotFoundError)
        and error.name
        and error.name.partition(".")[0] not in ("orchestrator", "search_spaces", "trainers")
    ):
        return (
            f"the package {error.name} is not installed. See what is missing, and the command that"
            " fixes it: orchestrate doctor --no-ray"
        )
    return f"{_defect(error, command)} {KEPT}"


def _of_system(error: OSError, command: str) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        named = (
            os.fsdecode(error.filename)
            if isinstance(error.filename, (str, bytes))
            else f"file descriptor {error.filename}"
        )
        other = "" if error.filename2 is None else f" -> {os.fsdecode(error.filename2)}"
        return f"{named}{other}: {reason}."
    if error.errno == errno.ENOENT and not _has_working_folder():
        return (
            "the folder that this was started in is gone (deleted, or no longer mounted). Change to"
            " one that exists: cd DIR."
        )
    # As of a write to an open file: the system does not say which.
    return (
        f"`{command}`: {reason} (the system does not say of which file; with --debug, the place in"
        " the program is shown)."
    )


def _has_working_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _defect(error: BaseException, command: str) -> str:
    first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    what = type(error).__name__ + (f": {first_line[:300].rstrip('.')}" if first_line else "")
    return (
        f"this is a defect of orchestrate, or of a library that it uses: {what}. Please report it"
        f" to its maintainers, with the command (`{command}`) and the text that it prints under"
        " --debug."
    )
