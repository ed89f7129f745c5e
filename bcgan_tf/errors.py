"""The one exception for mistakes that the user can put right."""

from __future__ import annotations


class UserError(ValueError):
    """Something the caller gave is wrong: one line, what was wrong and then what to do.

    The command line prints the message alone and exits with status 1; any other exception is a
    defect of the package and keeps its traceback.
    """
