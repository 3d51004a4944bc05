"""Makes clips of one raw video: the unit of work that processes and clusters share out.

The video is read twice. The first pass finds shots, faces and pieces. The second one cuts out and encodes every piece, and measures it
meanwhile; what is found wanting is removed again. Clips, pictures and a record appear together, as one folder, or not at all. Equal
contents and options give equal bytes, on any number of processes, because an encoder has one thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dagan.checks import json_text
from dagan.errors import InputError
from dagan.media.container import Frame, VideoReader
from dagan.media.face_networks import IdentityNetwork
from dagan.media.framing import crop
from dagan.media.landmarks import MESH_POINTS
from dagan.media.output import atomic_folder
from dagan.media.video import open_video
from dagan.media.writer import VideoWriter
from dagan.prepare.pieces import Piece, Watch, fault, figures, pieces, refused
from dagan.prepare.raws import PrepareOptions, Raw, Rejection, Wanted
from dagan.prepare.tracks import KEPT, Finder, Shot, Track

RECORD = "record.json"
STRIP, STRIP_SIDE = 4, 128  # A strip has so many pictures of this side.
_BLACK = 12.0  # A shot whose samples all have a lower mean grey level is black.
_EMBEDDED = 8  # The embedding of a clip is the mean of so many samples'.
_SHOWN = ("too small", "edge", "second face")  # Pieces left out for these reasons are shown in the report.


@dataclass(frozen=True)
class Task:
    """One raw video to be prepared."""

    raw: Raw
    """The video."""
    folder: Path
    """The folder that is made."""
    options: PrepareOptions
    """How clips are made."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    raw: str
    """The raw video's name."""
    failure: str = ""
    """The error that was not foreseen; empty where there was none."""


def prepare_video(task: Task) -> Outcome:
    """Prepares one raw video. Raises InputError where the folder cannot be written."""
    try:
        with atomic_folder(task.folder, overwrite=True) as folder:
            record = _prepared(task.raw, folder, task.options, task.folder.name)
            (folder / RECORD).write_text(json_text(record), encoding="utf-8")
    except InputError:
        raise
    except Exception as error:  # One odd video must not stop a run of thousands. The report says what happened.
        return Outcome(task.raw.name, f"{type(error).__name__}: {error}")
    return Outcome(task.raw.name)


def _prepared(raw: Raw, folder: Path, options: PrepareOptions, key: str) -> dict[str, Any]:
    record: dict[str, Any] = {"source": raw.name, "digest": raw.digest, "clips": [], "rejections": []}
    try:
        reader = open_video(raw.path, threads=False)
    except InputError as error:
        return record | {"rejections": [asdict(Rejection(reason="unreadable", found=str(error)))]}
    with reader:
        found, rejections = _find(raw, reader, options)
        facts = {"width": reader.width, "height": reader.height, "rate": str(reader.rate), "frames": reader.frames_read}
        # A pass that a list ends early cannot say whether the rest of the file is there.
        problem = reader.problem() if raw.wanted is None else None
        names: dict[int, int] = {}
        works: list[_Work] = []
        for piece, identity, rejection in sorted(found, key=lambda entry: (entry[0].first, entry[0].union)):
            number = names[piece.first] = names.get(piece.first, -1) + 1
            works.append(_Work(piece, identity, rejection, folder, f"{key[:12]}-{piece.first:06d}-{number}", reader, options))
        _write(reader, works)
    for work in works:
        if work.rejection is not None:
            rejections.append(work.rejection)
        else:
            record["clips"].append(work.entry)
    rejections.sort(key=lambda rejection: rejection.start)
    return record | facts | {"notes": [problem] if problem else [], "rejections": [asdict(rejection) for rejection in rejections]}


Found = tuple[Piece, str, Rejection | None]


def _find(raw: Raw, reader: VideoReader, options: PrepareOptions) -> tuple[list[Found], list[Rejection]]:
    """Makes the first pass. Returns pieces to be read again, with whom they show, and what is left out already."""
    found: list[Found] = []
    left_out: list[Rejection] = []
    unseen = set(raw.wanted or ())
    spans = None if raw.wanted is None else [(wanted.times[0], wanted.times[-1]) for wanted in raw.wanted]
    for shot in _finder().shots(reader, spans):
        if not shot.tracks and raw.wanted is None:
            reason = "black" if shot.brightest < _BLACK else "no face"
            left_out.append(Rejection(reason=reason, start=float(shot.start), end=float(shot.end)))
        for tracks, wanted in _asked(shot, raw.wanted, reader):
            if tracks:
                unseen.discard(wanted)
            for piece in pieces(shot, tracks, reader.width, reader.height, options):
                rejection = refused(piece, shot, options)
                if rejection is None or rejection.reason in _SHOWN:
                    found.append((piece, wanted.identity if wanted else "", rejection))
                else:
                    left_out.append(rejection)
    for wanted in unseen:
        words = "no face where the list says"
        left_out.append(Rejection(reason="no face", start=wanted.times[0], end=wanted.times[-1], found=words))
    return found, left_out


def _asked(shot: Shot, wanted: Sequence[Wanted] | None, reader: VideoReader) -> Iterator[tuple[list[Track], Any]]:
    """Yields the tracks to use: all, or for each piece of a list those whose face stands in its box, as far as it does."""
    if wanted is None:
        yield shot.tracks, None
        return
    for entry in wanted:
        inside = []
        for track in shot.tracks:
            kept = []
            for sample in track.samples:
                box = entry.box_at(float(sample.time), reader.width, reader.height)
                middle = sample.outline.mean(axis=0)
                if box is not None and (box[:2] <= middle).all() and (middle <= box[2:]).all():
                    kept.append(sample)
            if kept:
                inside.append(Track(kept, track.last if kept[-1] is track.samples[-1] else None))
        yield inside, entry


@cache
def _finder() -> Finder:
    """Returns this process's own finder, which is opened once."""
    return Finder()


@cache
def _network(file: Path) -> IdentityNetwork:
    return IdentityNetwork(file)


class _Work:
    """A piece while the video is read for the second time: its clip, its measures and its strip of pictures."""

    def __init__(
        self, piece: Piece, identity: str, rejection: Rejection | None, folder: Path, name: str, reader: VideoReader,
        options: PrepareOptions,
    ) -> None:  # fmt: skip
        self.piece, self.rejection = piece, rejection
        self._options, self._reader = options, reader
        self._folder, self._name, self._identity = folder, name, identity
        self._samples = {sample.index: sample for sample in piece.samples}
        self._shown = {sample.index: np.empty(0) for sample in _telling(piece)}
        self._watch = Watch(piece)
        self._embeddings: list[np.ndarray] = []
        every = -(-len(piece.samples) // _EMBEDDED)
        self._embedded = {sample.index for sample in piece.samples[::every]}
        self._writer: VideoWriter | None = None
        self._ticks = 0
        self._end = Fraction(0)
        self.entry: dict[str, Any] = {}

    def open(self, stack: ExitStack) -> None:
        """Opens the clip."""
        if self.rejection is None:
            rate, size = self._options.rate or self._reader.rate, self._options.size
            tick = 1 / rate if self._options.rate else self._reader.time_base
            path = self._folder / f"{self._name}.mp4"
            self._writer = stack.enter_context(VideoWriter(path, size, size, rate=rate, time_base=tick, threads=1))

    def add(self, frame: Frame) -> None:
        """Takes the next frame of the video."""
        sample = self._samples.get(frame.index)
        if self._writer is None and frame.index not in self._shown:
            return
        picture = crop(frame.image, self.piece.framing, self._options.size)
        if frame.index in self._shown:
            self._shown[frame.index] = _shrunk(picture)
        if self._writer is None:
            return
        self._show(picture, frame)
        if sample is not None:
            self._watch.add(picture, sample)
            if self._options.identity is not None and frame.index in self._embedded:
                marks = np.full((MESH_POINTS, 2), np.nan)
                marks[list(KEPT)] = self.piece.place(sample.points, len(picture))
                self._embeddings.append(_network(self._options.identity).embed(picture, marks))

    def _show(self, picture: np.ndarray, frame: Frame) -> None:
        """Writes a frame at its own time, or as often as the new frame rate asks for."""
        assert self._writer is not None
        time, rate = frame.time - self.piece.start, self._options.rate
        self._end = time + frame.duration
        if rate is None:
            self._writer.write(picture, time, frame.duration)
            return
        while self._ticks < self._end * rate:
            self._writer.write(picture, self._ticks / rate)
            self._ticks += 1

    def close(self, stack: ExitStack) -> None:
        """Ends the clip, judges it, and removes it again where it is not good enough."""
        stack.close()
        strip = self._folder / f"{self._name}.jpg"
        _write_strip(strip, [picture for picture in self._shown.values() if picture.size])
        self._shown.clear()
        if self._writer is None:
            assert self.rejection is not None
            self.rejection = replace(self.rejection, picture=strip.name)
            return
        measures = self._watch.measures()
        seconds = self._writer.frames_written / self._options.rate if self._options.rate else self._end
        why = fault(measures) if self._options.filters else None
        if why is not None:
            start = float(self.piece.start)
            self.rejection = Rejection(reason=why[0], start=start, end=start + float(seconds), found=why[1], picture=strip.name)
            self._writer.path.unlink()
            return
        framing = self.piece.framing
        self.entry = {
            "name": self._name, "identity": self._identity, "start": float(self.piece.start), "seconds": float(seconds),
            "frames": self._writer.frames_written, "box": [round(edge, 1) for edge in framing.bounds],
            "angle": round(float(np.degrees(framing.angle)), 1), "face_height": round(self.piece.face_height, 1),
            **figures(self.piece.samples), "measures": {name: round(value, 4) for name, value in measures.items()},
            "embedding": None if not self._embeddings else [round(float(v), 5) for v in np.mean(self._embeddings, axis=0)],
        }  # fmt: skip


def _write(reader: VideoReader, works: Sequence[_Work]) -> None:
    """Makes the second pass."""
    waiting, running = sorted(works, key=lambda work: work.piece.first), []
    if not waiting:
        return
    last = max(work.piece.stop for work in works)
    with ExitStack() as everything:
        for frame in reader:
            while waiting and waiting[0].piece.first <= frame.index:
                work, stack = waiting.pop(0), everything.enter_context(ExitStack())
                work.open(stack)
                running.append((work, stack))
            for work, _ in running:
                work.add(frame)
            for work, stack in [entry for entry in running if entry[0].piece.stop <= frame.index + 1]:
                work.close(stack)
                running.remove((work, stack))
            if frame.index + 1 >= last:
                break
        for work, stack in running:  # The second pass ended before the first one did.
            work.close(stack)


def _telling(piece: Piece) -> list[Any]:
    """Returns the samples that a strip shows: the first one, the widest mouth, the farthest turn, and the most closed eyes."""
    samples = piece.samples
    tellings = [samples[0], max(samples, key=lambda s: s.gap), max(samples, key=lambda s: s.yaw), max(samples, key=lambda s: s.blink)]
    return list({sample.index: sample for sample in tellings}.values())


def _shrunk(picture: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((STRIP_SIDE, STRIP_SIDE), Image.Resampling.BOX))


def _write_strip(path: Path, pictures: Sequence[np.ndarray]) -> None:
    """Writes the pictures side by side. Where there are fewer than a strip has, the rest stays grey."""
    from PIL import Image

    strip = np.full((STRIP_SIDE, STRIP * STRIP_SIDE, 3), 96, np.uint8)
    for i, picture in enumerate(pictures):
        strip[:, i * STRIP_SIDE : (i + 1) * STRIP_SIDE] = picture
    Image.fromarray(strip).save(path, quality=90)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Returns the record in a folder that `prepare_video` made, or None where there is none or it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"source", "digest", "clips", "rejections"} <= set(record) else None
