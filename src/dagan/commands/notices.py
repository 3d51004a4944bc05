"""What the commands for files share: warnings on the error stream, and frame rates as people write them."""

from __future__ import annotations

import sys
from fractions import Fraction

from dagan.errors import InputError


def warn(message: str) -> None:
    """Prints one line on the error stream."""
    print(f"dagan: {message}", file=sys.stderr)


def parse_rate(text: str | None) -> Fraction | None:
    """A frame rate such as 25, 29.97 or 30000/1001. Raises InputError for anything else."""
    if text is None:
        return None
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"frame rate is {text!r}: must be a number such as 25, 29.97 or 30000/1001") from None
    if not 0 < rate <= 1000:
        raise InputError(f"frame rate is {text}: must be above 0, and at most 1000")
    return rate
