"""What this process prints reaches whoever reads it: signs that a terminal lacks are replaced, and
nothing that a name carries is obeyed by it.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import warnings
from typing import Any, Final, TextIO

from trainers.errors import one_line

_HANDLER: Final = "orchestrate.plain-signs"

_PLAIN: Final[dict[str, str]] = {
    "·": "-",
    "–": "-",
    "—": "-",
    "−": "-",
    "±": "+/-",
    "×": "x",
    "→": "->",
    "←": "<-",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "…": "...",
    "§": "section ",
    "σ": "sigma",
    "µ": "u",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "•": "*",
    "✓": "ok",
    "━": "-",
    "─": "-",
    "│": "|",
    "╸": "-",
    "╺": "-",
    "\N{NO-BREAK SPACE}": " ",
    "\N{REPLACEMENT CHARACTER}": "?",
}
"""Signs of ours that an ASCII or Latin-1 terminal lacks; whatever else it lacks is printed as its
escape, such as \\u0142.
"""


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replaces what cannot be encoded (an error handler of codecs)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return (
        "".join(_PLAIN.get(char) or char.encode("unicode_escape").decode() for char in bad),
        error.end,
    )


def escaped(text: str) -> str:
    """The text with control characters, surrogates and marks of direction as escapes; lines stay
    lines.
    """
    return "\n".join(map(one_line, text.split("\n")))


class _Listener(io.TextIOWrapper):
    """A standard stream of which nobody may be reading any more (`| head -1`): what is said then is
    lost, and the work goes on to its own end.
    """

    forgiven: frozenset[int] = frozenset((errno.EPIPE,))
    """Errors of the system that are no reason to stop."""
    watched: bool = False
    """Whether showing is all there is to do, so that the loss of the reader ends it:
    BrokenPipeError is raised.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._lost(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        if error.errno not in self.forgiven:
            raise error
        discard(self)
        if self.watched:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def discard(stream: TextIO) -> None:
    """Sends whatever is still to be written to the stream nowhere, without an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def ready() -> None:
    """Makes standard output and error take every character, and opens them where the caller closed
    them.
    """
    codecs.register_error(_HANDLER, _plain)
    _fill_closed()
    sys.stdout, sys.stderr = _listener(1, sys.stdout), _listener(2, sys.stderr)
    if isinstance(sys.stderr, _Listener):
        # Progress is shown there, and must not stop what it shows.
        sys.stderr.forgiven = frozenset((errno.EPIPE, errno.EIO, errno.ENOSPC))
    warnings.showwarning = _show_warning


def _listener(descriptor: int, stream: TextIO | None) -> TextIO:
    if stream is None:
        return _Listener(open(descriptor, "wb", closefd=False), encoding="utf-8", errors=_HANDLER)
    if type(stream) is not io.TextIOWrapper:
        return stream
    encoding, by_line, at_once = stream.encoding, stream.line_buffering, stream.write_through
    return _Listener(
        stream.detach(),
        encoding=encoding,
        errors=_HANDLER,
        line_buffering=by_line,
        write_through=at_once,
    )


def stop_when_nobody_reads() -> None:
    """Makes a later write to standard output raise BrokenPipeError once nobody reads it."""
    if isinstance(sys.stdout, _Listener):
        sys.stdout.watched = True


def _fill_closed() -> None:
    """Descriptors 0 to 2 are open: a file that got one of them would take in what is printed."""
    while True:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere > 2:
            os.close(nowhere)
            return
        os.set_inheritable(nowhere, True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Prints a library's warning as one line, without the place in its source."""
    print(
        f"orchestrate: warning: {escaped(' '.join(str(message).split()))}", file=file or sys.stderr
    )


def finish(code: int) -> int:
    """Flushes everything printed. Returns the exit status: `code`, or 2 where standard output could
    not be written (a full disk).
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Those who read have what they wanted.
        pass
    except OSError as error:
        discard(sys.stdout)
        print(
            f"orchestrate: standard output cannot be written ({error.strerror}). What was recorded"
            " is kept.",
            file=sys.stderr,
        )
        code = 2
    sys.stderr.flush()
    return code
