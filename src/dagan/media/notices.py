"""Where one-line notices for the user go when nobody else wants them."""

from __future__ import annotations

import sys
from collections.abc import Callable

Warn = Callable[[str], None]


def to_stderr(message: str) -> None:
    """Prints one line on the error stream, so that standard output stays clean for results."""
    print(message, file=sys.stderr)
