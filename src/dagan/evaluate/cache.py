"""What was measured before, kept in the run's folder: one entry for each method on each pair.

An entry's name is a digest of everything that its figures depend on, so a changed clip, model, result, tool, setting or version finds
nothing and is measured anew, and entries of other settings can stay. Entries appear whole or not at all: a run that is stopped,
however rudely, goes on where it was. Strips lie in the same way beside them, in a folder of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from dagan.arrays import read_arrays
from dagan.evaluate.archive import finite, scores_from
from dagan.evaluate.measure import Measured
from dagan.media.output import atomic_output

FORMAT = 2  # to be raised whenever a metric's way to measure changes
_PACKAGES = ("dagan", "torch", "numpy", "scipy", "scikit-image", "torchmetrics", "ai-edge-litert", "onnxruntime", "av")
PICTURES = "pictures"
CACHE = "cache"


class Cache:
    """Entries below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str, with_features: bool) -> Measured | None:
        """The entry of a key with its strip; None when it is missing, damaged or incomplete."""
        try:
            entry = json.loads(self._scores(key).read_text(encoding="utf-8"))
            scores = scores_from(entry["scores"])
            strip = self.strip(key).read_bytes() if scores.frames else None
            features = None
            if with_features and scores.frames:
                arrays = read_arrays(self._features(key), "it is measured anew", ("results", "driving"))
                features = (arrays["results"], arrays["driving"])
            return Measured(scores, strip, features, tuple(entry["notices"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, key: str, measured: Measured) -> None:
        """Writes an entry, its scores last: they make it count."""
        if measured.features is not None:
            with atomic_output(self._features(key), overwrite=True) as partial, partial.open("wb") as file:
                np.savez(file, results=measured.features[0], driving=measured.features[1])
        if measured.strip is not None:
            self.save_strip(key, measured.strip)
        with atomic_output(self._scores(key), overwrite=True) as partial:
            entry = {"scores": finite(asdict(measured.scores)), "notices": measured.notices}
            partial.write_text(json.dumps(entry, allow_nan=False), encoding="utf-8")

    def strip(self, key: str) -> Path:
        """Where the strip of a key lies."""
        return self.folder / PICTURES / f"{key}.jpg"

    def save_strip(self, key: str, strip: bytes) -> None:
        """Writes a strip."""
        with atomic_output(self.strip(key), overwrite=True) as partial:
            partial.write_bytes(strip)

    def _scores(self, key: str) -> Path:
        return self.folder / CACHE / f"{key}.json"

    def _features(self, key: str) -> Path:
        return self.folder / CACHE / f"{key}.npz"


def key_of(parts: Mapping[str, object]) -> str:
    """32 hexadecimal digits: the same for the same parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def versions() -> dict[str, str]:
    """Package -> version of what figures depend on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found
