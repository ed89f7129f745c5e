"""The exception for mistakes that the user can correct."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong input: the message says in one line what was wrong and what to do.

    The command line prints the message and exits with status 1. Any other exception is a defect of
    the package and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """An error's message in one line; of a long message of Keras the cause, which it ends with."""
    lines = str(error).rpartition("Exception encountered: ")[2].strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
