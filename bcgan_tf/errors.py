"""The exception for mistakes that the user can correct."""

from __future__ import annotations

import re


class UserError(ValueError):
    """Wrong input: the message says in one line what was wrong and what to do.

    The command line prints the message and exits with status 1. Any other exception is a defect of
    the package and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """An error's message in one line; of a long message of Keras the cause, which it ends with."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).rpartition("Exception encountered: ")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return (told or lines or [type(error).__name__])[0][:200]
