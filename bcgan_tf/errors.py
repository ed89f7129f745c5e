"""The one exception for mistakes that the user can put right, and what others say."""

from __future__ import annotations


class UserError(ValueError):
    """Something the caller gave is wrong: one line, what was wrong and then what to do.

    The command line prints the message alone and exits with status 1; any other exception is a
    defect of the package and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """What an error says, in one line: Keras' messages have dozens, and end with the cause."""
    lines = str(error).rpartition("Exception encountered: ")[2].strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
