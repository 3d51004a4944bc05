"""Measures one pair: goes once through its driving frames, with every method's answers beside them.

Only a few frames are in memory, however long the clip is.

Legend: S side of the pictures measured. Pictures are uint8 H x W x 3.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from dagan.errors import InputError
from dagan.evaluate import metrics
from dagan.evaluate.face_metrics import Seen
from dagan.evaluate.methods import Job, Method, Renderer
from dagan.evaluate.pairs import Image, Pair, Plan, count_frames, evenly, make_plan, numbered, read_frame
from dagan.evaluate.records import PairScores
from dagan.evaluate.rulers import Rulers, Settings, Tally
from dagan.media.framing import to_square
from dagan.media.landmarks import pose_distance
from dagan.media.video import VideoReader, open_video
from dagan.stream import batched

TILE = 128  # The side of a frame in a strip, in pixels.
BATCH = 8  # So many driving frames are answered at once.
_CANDIDATES = 60  # The reference frame is looked for among at most so many measured frames.
_NOTHING = 127  # The grey of a tile without a picture.


@dataclass(frozen=True)
class Measured:
    """What came of one method on one pair."""

    scores: PairScores
    """The values that were measured."""
    strip: bytes | None = None
    """A JPEG file of the shown frames."""
    features: tuple[np.ndarray, np.ndarray] | None = None
    """The features of results and of their driving frames, N x D each, for distances between sets."""
    notices: tuple[str, ...] = ()
    """What a user should know besides the problem in the scores."""


@dataclass(frozen=True)
class MeasuredPair:
    """What came of all methods on one pair."""

    methods: Mapping[str, Measured]
    """What came of each method, by its name."""
    strips: Mapping[str, bytes]
    """JPEG files of "source" and "driving"; empty when the pair could not be read."""


def measure_pair(pair: Pair, methods: Mapping[str, Method], rulers: Rulers, settings: Settings) -> MeasuredPair:
    """Measures every method on a pair. A pair, or a method's result, that cannot be read becomes a problem in the scores, not an error."""
    with ExitStack() as stack:
        try:
            plan = make_plan(pair, count_frames(pair.driving.path), settings.every)
            video = stack.enter_context(open_video(pair.driving.path))
            source = read_frame(pair.source, pair.frame)
            reference = _reference(pair, video, plan, source, rulers, settings)
            frames = numbered(video, plan.needed)
            if pair.driving_frame is not None:
                frames = iter([(pair.driving_frame, read_frame(pair.driving, pair.driving_frame))])
        except InputError as error:
            return MeasuredPair({name: Measured(_unmeasured(pair, name, str(error))) for name in methods}, {})
        return _measure(Job(pair, plan, source, reference, settings.size, settings.adapt_scale), frames, methods, rulers, settings)


def _measure(
    job: Job, frames: Iterator[tuple[int, Image]], methods: Mapping[str, Method], rulers: Rulers, settings: Settings
) -> MeasuredPair:  # fmt: skip
    """Measures every method on a pair, whose driving frames come with their numbers."""
    pair, plan, source = job.pair, job.plan, job.source
    found: dict[str, Measured] = {}
    renderers: dict[str, Renderer] = {}
    for name, method in methods.items():
        try:
            renderers[name] = method.begin(job)
        except InputError as error:
            found[name] = Measured(_unmeasured(pair, name, str(error)))
    square = to_square(source, settings.size)
    face = rulers.watcher.see(square)
    tallies = {name: Tally(rulers, settings, face) for name in renderers}
    failed: dict[str, str] = {}
    driving = _watch(job, frames, renderers, tallies, failed, rulers)
    for name, tally in tallies.items():
        problem = failed.get(name) or renderers[name].problem
        features = (np.concatenate(tally.features), np.concatenate(tally.truths)) if tally.features else None
        scores = tally.finish(
            pair=pair.name, source=pair.source.name, driving=pair.driving.name, method=name, source_frame=pair.frame, problem=problem
        )
        strip = _strip([tally.shown.get(i) for i in plan.shown]) if scores.frames else None
        found[name] = Measured(scores, strip, features, tuple(renderers[name].notices))
    tile = _tile(square)
    strips = {"source": _strip([tile] * len(plan.shown)), "driving": _strip([driving.get(i) for i in plan.shown])}
    return MeasuredPair({name: found[name] for name in methods}, strips)


def _watch(
    job: Job, frames: Iterator[tuple[int, Image]], renderers: Mapping[str, Renderer], tallies: Mapping[str, Tally],
    failed: dict[str, str], rulers: Rulers,
) -> dict[int, Image]:  # fmt: skip
    """Goes once through the driving frames and returns the tiles of those that are shown. Results that break off are put in `failed`."""
    plan, size = job.plan, job.size
    measured, followed, shown = set(plan.measured), set(plan.followed), set(plan.shown)
    tiles: dict[int, Image] = {}
    before: dict[str, tuple[int, Image]] = {}
    last: tuple[int, Image] | None = None
    for batch in batched(frames, BATCH):
        numbers = [number for number, _ in batch]
        squares = [to_square(image, size) for _, image in batch]
        faces = [rulers.watcher.see(s) if n in measured else None for n, s in zip(numbers, squares, strict=True)]
        steps: dict[int, metrics.Step] = {}
        for number, square in zip(numbers, squares, strict=True):
            if last is not None and last[0] == number - 1 and last[0] in followed:
                steps[number] = metrics.step(last[1], square)
            last = (number, square)
        tiles |= {n: _tile(s) for n, s in zip(numbers, squares, strict=True) if n in shown}
        for name, renderer in renderers.items():
            if name in failed:
                continue
            try:
                results = renderer.render(numbers, [image for _, image in batch])
            except InputError as error:
                failed[name] = str(error)
                continue
            tally = tallies[name]
            kept = [(n, r, s, f) for n, r, s, f in zip(numbers, results, squares, faces, strict=True) if r is not None and n in measured]
            if kept:
                tally.add(*(list(column) for column in zip(*kept, strict=True)))
            tally.shown |= {n: _tile(r) for n, r, _, _ in kept if n in shown}
            for number, result in zip(numbers, results, strict=True):
                latest = before.get(name)
                if result is not None and latest is not None and latest[0] == number - 1 and number in steps:
                    tally.follow(latest[1], result, steps[number])
                if result is not None:
                    before[name] = (number, result)
    return tiles


def _reference(pair: Pair, video: VideoReader, plan: Plan, source: Image, rulers: Rulers, settings: Settings) -> Image | None:
    """Returns the driving frame that stands for the source's pose. It is None for absolute motion, and for a clip driven by itself.

    For a single driving frame it is looked for in the whole clip, because motion counted from the frame itself would be none.
    """
    if not settings.relative or settings.protocol == "reconstruction":
        return None
    wanted: Seen | None = None
    if settings.reference == "auto":
        wanted = rulers.watcher.see(to_square(source, settings.size))
    candidates = plan.measured if pair.driving_frame is None else range(0, plan.length, settings.every)
    numbers = evenly(candidates, _CANDIDATES) if wanted is not None else (0,)
    nearest: tuple[float, Image] | None = None
    for _, image in numbered(video, numbers):
        seen = rulers.watcher.see(to_square(image, settings.size)) if wanted is not None else None
        distance = pose_distance(wanted.pose, seen.pose) if wanted is not None and seen is not None else float("inf")
        if nearest is None or distance < nearest[0]:
            nearest = (distance, image)
    if nearest is None:
        raise InputError(f"{pair.driving.path}: no frame could be read: give another file")
    return nearest[1]


def _unmeasured(pair: Pair, method: str, problem: str) -> PairScores:
    return PairScores(
        pair=pair.name, source=pair.source.name, driving=pair.driving.name, method=method, source_frame=pair.frame, problem=problem
    )


def _tile(picture: Image) -> Image:
    from PIL import Image as Pillow

    return np.asarray(Pillow.fromarray(picture).resize((TILE, TILE), Pillow.Resampling.BOX))


def _strip(tiles: Sequence[Image | None]) -> bytes:
    """Returns a JPEG file of tiles, left to right. A tile that is None is grey."""
    from PIL import Image as Pillow

    blank = np.full((TILE, TILE, 3), _NOTHING, np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(np.concatenate([blank if tile is None else tile for tile in tiles], 1)).save(file, "JPEG", quality=88)
    return file.getvalue()
