"""File names that are no text: they hold bytes that are not UTF-8, which Python reads as lone surrogates (PEP 383)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNWRITABLE = re.compile("[\\ud800-\\udfff]")


def printable(text: str) -> str:
    """Returns the text with escapes (a backslash, u and four digits) for what no file in UTF-8 can hold."""
    return _UNWRITABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_text(value: object) -> str:
    """Writes a value as JSON with indented lines. Names are escaped as in `printable`. Raises ValueError for NaN."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return _UNWRITABLE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text) + "\n"  # JSON itself escapes the backslash.


@contextmanager
def text_path(path: Path) -> Iterator[Path]:
    """Yields a name in UTF-8 of an existing file or folder, for libraries that take no other. It is valid in the block.

    It is `path` itself where that is text. Else (some Unix file systems allow such names) it is the open file's name below /dev/fd.
    """
    if printable(str(path)) == str(path):
        yield path
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        yield Path(f"/dev/fd/{opened}")
    finally:
        os.close(opened)
