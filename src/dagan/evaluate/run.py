"""An evaluation run: every method on every pair, in parallel. It goes on from what an earlier run in the same folder has measured.

Figures depend neither on the number of workers nor on what was measured earlier.

What was measured is kept in the run's folder, as one entry for each method on each pair. An entry's name is a digest of everything that
its figures depend on. A changed clip, model, result, tool, setting or version therefore finds no entry and is measured again, and entries
of other settings can stay. Entries appear whole or not at all, so that a run that is stopped, even by force, goes on where it was. Strips
are kept in the same way, in a folder of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from dagan.checks import read_arrays
from dagan.errors import InputError
from dagan.evaluate.distances import Features, Moments, frechet_distance
from dagan.evaluate.face_metrics import expression_totals
from dagan.evaluate.measure import Measured, MeasuredPair, measure_pair
from dagan.evaluate.methods import Method, Spec, stamp_of
from dagan.evaluate.pairs import Pair
from dagan.evaluate.records import Evaluation, PairScores, finite, scores_from
from dagan.evaluate.rulers import RulerFiles, Rulers, Settings, catalogue
from dagan.media.output import atomic_output
from dagan.processes import share_out
from dagan.progress import Progress, Warn, silent

FORMAT = 3  # It must be raised whenever a metric is measured in another way.
_PACKAGES = ("dagan", "torch", "numpy", "scipy", "scikit-image", "torchmetrics", "ai-edge-litert", "onnxruntime", "av")
PICTURES = "pictures"
STAGE = "pairs"  # `Progress` is told of this stage.
CACHE = "cache"


class Cache:
    """Reads and writes entries below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str, with_features: bool) -> Measured | None:
        """Returns the entry of a key with its strip, or None when it is missing, damaged or incomplete."""
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
        """Writes an entry. Its scores are written last, because without them it does not count."""
        if measured.features is not None:
            with atomic_output(self._features(key), overwrite=True) as partial, partial.open("wb") as file:
                np.savez(file, results=measured.features[0], driving=measured.features[1])
        if measured.strip is not None:
            self.save_strip(key, measured.strip)
        with atomic_output(self._scores(key), overwrite=True) as partial:
            entry = {"scores": finite(asdict(measured.scores)), "notices": measured.notices}
            partial.write_text(json.dumps(entry, allow_nan=False), encoding="utf-8")

    def strip(self, key: str) -> Path:
        """Returns where the strip of a key is."""
        return self.folder / PICTURES / f"{key}.jpg"

    def save_strip(self, key: str, strip: bytes) -> None:
        """Writes the JPEG file of a strip under its key."""
        with atomic_output(self.strip(key), overwrite=True) as partial:
            partial.write_bytes(strip)

    def _scores(self, key: str) -> Path:
        return self.folder / CACHE / f"{key}.json"

    def _features(self, key: str) -> Path:
        return self.folder / CACHE / f"{key}.npz"


def key_of(parts: Mapping[str, object]) -> str:
    """Returns 32 hexadecimal digits, which are the same for the same parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def versions() -> dict[str, str]:
    """Returns the versions of the packages that figures depend on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found




def evaluate(
    pairs: Sequence[Pair], methods: Sequence[Spec], files: RulerFiles, settings: Settings, *, folder: Path | None = None,
    workers: int = 1, cluster: str | None = None, progress: Progress = silent, warn: Warn = lambda message: None,
    opening: str | None = None,
) -> Evaluation:  # fmt: skip
    """Measures `methods` on `pairs`.

    `folder` keeps what was measured (in `cache`) and strips (in `pictures`); with None nothing is kept and no pictures are taken. There
    are `workers` processes, of this machine or of the Ray cluster at the address `cluster`, each with its own copy of models and tools.
    `progress` is told of pairs, and `warn` of results that had to be adapted, and of `opening` once everything fits. Raises InputError for
    settings that do not fit, for files that are missing, and when not a single pair could be measured.
    """
    _check(pairs, methods, settings, workers)
    if opening is not None:
        warn(opening)
    run = _Run(pairs, methods, files, settings, Cache(folder) if folder is not None else None, warn)
    waiting = [(pair, missing) for pair in pairs if (missing := run.take_up(pair))]
    done = len(pairs) - len(waiting)
    progress(STAGE, done, len(pairs))
    # Methods are opened when the first pair is measured, so that a run that is complete loads no model.
    bench = partial(_Bench, tuple(methods), files, settings)
    for (pair, _), measured in share_out(bench, waiting, workers, cluster):
        run.keep(pair, measured)
        done += 1
        progress(STAGE, done, len(pairs))
    return run.evaluation()


@dataclass
class _Run:
    """What is known of a run so far."""
    pairs: Sequence[Pair]
    methods: Sequence[Spec]
    files: RulerFiles
    settings: Settings
    cache: Cache | None
    warn: Warn
    scores: dict[tuple[str, str], PairScores] = field(default_factory=dict)
    features: dict[tuple[str, str], tuple[Features, Features]] = field(default_factory=dict)
    notices: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    stamps: dict[Path, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.common = {
            "format": FORMAT, "versions": versions(), "settings": asdict(self.settings), "tools": self.files.digests(),
        }  # fmt: skip

    def take_up(self, pair: Pair) -> list[str]:
        """Takes what the cache has of a pair, and returns the names of the methods that are to be measured."""
        if self.cache is None:
            return [spec.name for spec in self.methods]
        strips = {name: self.cache.strip(self._key(pair, name)) for name in ("source", "driving")}
        missing = []
        for spec in self.methods:
            measured = self.cache.load(self._key(pair, spec.name), self.settings.fid)
            if measured is None or (measured.scores.frames and not all(strip.is_file() for strip in strips.values())):
                missing.append(spec.name)
            else:
                self._note(pair, spec.name, measured)
        return missing

    def keep(self, pair: Pair, measured: MeasuredPair) -> None:
        """Takes what was measured of a pair, and writes it into the cache."""
        if self.cache is not None:
            for name, strip in measured.strips.items():
                self.cache.save_strip(self._key(pair, name), strip)
        for name, found in measured.methods.items():
            # Missing results and unreadable clips are looked for again next time.
            if self.cache is not None and found.scores.frames:
                self.cache.save(self._key(pair, name), found)
            self._note(pair, name, found)

    def evaluation(self) -> Evaluation:
        """Returns the whole run. Raises InputError when nothing was measured."""
        scores = [self.scores[pair.name, spec.name] for pair in self.pairs for spec in self.methods]
        if not any(s.frames for s in scores):
            raise InputError(f"nothing could be measured; the first of {len(scores)} problems: {scores[0].problem}")
        for (method, notice), names in sorted(self.notices.items()):
            self.warn(f"{method}: {notice} ({len(names)} of {len(self.pairs)} pairs)")
        metrics = catalogue(self.files, self.settings)
        found = {metric.key for metric in metrics}
        return Evaluation(
            protocol=self.settings.protocol, metrics=metrics, methods=tuple(spec.name for spec in self.methods), scores=tuple(scores),
            settings=self._facts(), totals=self._totals("fid" in found), pictures=self._pictures(),
        )  # fmt: skip

    def _note(self, pair: Pair, method: str, measured: Measured) -> None:
        self.scores[pair.name, method] = measured.scores
        for notice in measured.notices:
            self.notices.setdefault((method, notice), []).append(pair.name)
        if measured.features is not None and self.cache is None:  # A cache has them on disk, so that memory does not grow.
            self.features[pair.name, method] = measured.features

    def _pictures(self) -> dict[str, dict[str, str]]:
        """Returns the strips in the order of pairs, whichever was ready first, so that the same run gives the same file."""
        pictures: dict[str, dict[str, str]] = {}
        for pair in self.pairs if self.cache is not None else ():
            measured = [spec.name for spec in self.methods if self.scores[pair.name, spec.name].frames]
            for name in ("source", "driving", *measured) if measured else ():
                pictures.setdefault(name, {})[pair.name] = f"{PICTURES}/{self._key(pair, name)}.jpg"
        return pictures

    def _key(self, pair: Pair, name: str) -> str:
        """Returns the key of an entry. `name` is a method's, or "source" or "driving"."""
        stamps = {spec.name: spec.stamp(pair) for spec in self.methods if spec.name == name}
        clips = [self._stamp(pair.source.path), pair.frame, self._stamp(pair.driving.path), pair.driving_frame]
        kind = {spec.name: type(spec).__name__ for spec in self.methods if spec.name == name}
        return key_of({**self.common, "pair": pair.name, "clips": clips, "method": [name, kind, stamps]})

    def _stamp(self, path: Path) -> str:
        """Returns `stamp_of` a clip, which many frame pairs share."""
        if path not in self.stamps:
            self.stamps[path] = stamp_of(path)
        return self.stamps[path]

    def _features(self, pair: Pair, method: str) -> tuple[Features, Features] | None:
        if self.cache is None:
            return self.features.get((pair.name, method))
        measured = self.cache.load(self._key(pair, method), True)
        return measured.features if measured is not None else None

    def _totals(self, fid: bool) -> dict[str, dict[str, float]]:
        totals: dict[str, dict[str, float]] = {}
        for spec in self.methods:
            found = expression_totals(self.scores[pair.name, spec.name] for pair in self.pairs)
            if fid:
                found |= self._fid(spec.name)
            if found:
                totals[spec.name] = found
        return totals

    def _fid(self, method: str) -> dict[str, float]:
        results, truths = Moments(), Moments()
        for pair in self.pairs:  # The order of pairs is fixed, because sums of floats depend on it.
            features = self._features(pair, method)
            if features is not None:
                results.add(features[0])
                truths.add(features[1])
        distance = frechet_distance(results, truths)
        return {} if distance is None else {"fid": distance}

    def _facts(self) -> dict[str, str]:
        settings = {f.name.replace("_", " "): str(getattr(self.settings, f.name)) for f in fields(self.settings)}
        if self.settings.protocol == "reconstruction":
            for name in ("relative", "adapt scale", "reference"):  # These concern only motion between two people.
                settings.pop(name)
        present = self.files.present()
        tools = {f"tool {name}": f"{present[name].name}, SHA-256 {digest}" for name, digest in self.files.digests().items()}
        frames = sum(s.frames != () for s in self.scores.values())
        facts = {"pairs": str(len(self.pairs)), "pairs times methods measured": f"{frames} of {len(self.scores)}"}
        models = {name: fact for spec in self.methods for name, fact in spec.facts.items()}
        return facts | settings | models | tools | {f"version of {name}": number for name, number in versions().items()}


def _check(pairs: Sequence[Pair], methods: Sequence[Spec], settings: Settings, workers: int) -> None:
    if settings.every < 1:
        raise InputError(f"--every is {settings.every}: must be at least 1")
    if not 32 <= settings.size <= 4096:
        raise InputError(f"--size is {settings.size}: must be from 32 to 4096")
    if workers < 1:
        raise InputError(f"--workers is {workers}: must be at least 1")
    names = [spec.name for spec in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or {"source", "driving"} & set(names):
        raise InputError(f"methods are named {', '.join(names)}: each needs a name of its own, and none source or driving")
    if not pairs or not methods:
        raise InputError("there is nothing to measure: give clips and a method")


class _Bench:
    """The opened methods and tools of one process."""

    def __init__(self, specs: Iterable[Spec], files: RulerFiles, settings: Settings) -> None:
        self.rulers, self.settings = Rulers(files, settings), settings
        self.methods: Mapping[str, Method] = {spec.name: spec.open() for spec in specs}

    def __call__(self, piece: tuple[Pair, list[str]]) -> MeasuredPair:
        """Measures the named methods on a pair."""
        pair, names = piece
        with _one_thread():
            return measure_pair(pair, {name: self.methods[name] for name in names}, self.rulers, self.settings)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sets torch to one thread for the rest of this process.

    Several threads would add numbers in another order, which changes last digits, and processes would compete for cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
