"""The command ``bcgan-tf``: it parses, calls the library, and prints.

TensorFlow is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

from .group import main

__all__ = ["main"]
