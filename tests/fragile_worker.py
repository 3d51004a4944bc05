"""A worker that ends itself over a piece of work, the first time that it is tried. Other processes must be able to import it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


class Fragile:
    """Squares numbers. It ends its process over 2, and notes in `folder` that it has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> Callable[[int], int]:
        return self.work

    def work(self, piece: int) -> int:
        tried = self.folder / str(piece)
        if piece == 2 and not tried.exists():
            tried.touch()
            os._exit(1)
        return piece * piece
