"""Errors that a user can fix: their message is the whole message, and no traceback is shown for
them.
"""

from __future__ import annotations

from collections.abc import Callable


class UserError(Exception):
    """Bad input or set-up. str() says what, where, the value and what to do."""

    exit_status: int = 2
    """Of the command that the error ends."""


class DataError(UserError):
    """A data set is missing, damaged or not what its description says. Its message is one line that
    a terminal shows as it is.
    """

    def __init__(self, message: str) -> None:
        # Names of files and classes come from other people's archives.
        super().__init__(one_line(message))


class SettingsError(UserError):
    """Settings of a plug-in do not fit each other or the data. The reader of the spec adds the
    file, the line and the values.
    """

    def __init__(self, *fields: str, problem: str, hint: str | None = None) -> None:
        """
        Args:
            fields: names of the fields that have a part in it, the likeliest to be changed first.
            problem: what is wrong, without the place, key and value.
            hint: what to write instead.
        """
        self.fields = fields
        self.problem = problem
        self.hint = hint
        super().__init__(f"{problem}; {hint}" if hint else problem)

    def __reduce__(
        self,
    ) -> tuple[Callable[..., SettingsError], tuple[tuple[str, ...], str, str | None]]:
        # Exceptions are otherwise pickled by their message alone.
        return _settings_error, (self.fields, self.problem, self.hint)


def _settings_error(fields: tuple[str, ...], problem: str, hint: str | None) -> SettingsError:
    return SettingsError(*fields, problem=problem, hint=hint)


def one_line(text: str, longest: int | None = None) -> str:
    """Returns `text` with what a terminal would obey or not show (escapes, line ends, invisible
    signs) written as escapes: \\x1b, \\n, \\u202e.

    Args:
        longest: after how many characters it is cut; None: never.
    """
    # Of a text that is cut, no more is read than can be shown.
    read = text if longest is None else text[: longest + 1]
    safe = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in read
    )
    return safe if longest is None or len(text) <= longest else safe[:longest] + "..."
