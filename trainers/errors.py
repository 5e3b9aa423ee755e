"""Errors that a user can mend: their message is the whole message, and no traceback is shown for them."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or set-up. str() says what, where, the value and what to do."""


class DataError(UserError):
    """A data set is missing, damaged or not what its description says."""
