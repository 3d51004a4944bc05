"""The methods that are measured: models, folders of results of any program, and the baseline that copies the source.

A method is described by a small specification, which can be sent to another process. Opened there, it answers driving frames with
pictures.

Legend: S side of the pictures that are measured. Pictures are uint8 H x W x 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from dagan.data.clips import Clip, bare, find_clips, find_stills
from dagan.engine.base import Engine, finite_source
from dagan.engine.sessions import TORCH
from dagan.errors import InputError
from dagan.evaluate.pairs import Image, Pair, Plan, count_frames, numbered
from dagan.evaluate.records import COPY
from dagan.media.framing import to_square
from dagan.media.images import is_photo, read_image
from dagan.media.landmarks import Face, FaceLandmarker
from dagan.media.video import open_video
from dagan.models.keypoints import Keypoints
from dagan.motion.transfer import transfer

_JOINTS = ("--", "-", "_")  # One of these lies between source and driving clip in the names of results.


@dataclass(frozen=True)
class Job:
    """One pair to answer."""

    pair: Pair
    """The source and the driving clip."""
    plan: Plan
    """Which frames are measured."""
    source: Image
    """The source picture."""
    reference: Image | None
    """The driving frame that stands for the source's pose; None for absolute motion."""
    size: int
    """The side S of the pictures that are measured."""
    adapt_scale: bool = True
    """Whether movements are scaled to the size of the source's face."""


class Renderer(Protocol):
    """Answers a job's driving frames, which come in order."""

    problem: str | None
    """Why it cannot answer all of them; None where it can."""
    notices: list[str]
    """What else a user should know."""

    def render(self, numbers: Sequence[int], driving: Sequence[Image]) -> list[Image | None]:
        """Returns an S x S result for each frame; None where there is none."""


class Method(Protocol):
    """A method that is ready to work. `begin` raises InputError when a pair cannot be answered at all."""

    def begin(self, job: Job) -> Renderer: ...


class Spec(Protocol):
    """The specification of a method."""

    @property
    def name(self) -> str:
        """The method's name in the report."""

    @property
    def facts(self) -> dict[str, str]:
        """What a reader needs to repeat the run."""

    def stamp(self, pair: Pair) -> str:
        """Returns a text that differs wherever results on a pair could differ."""

    def open(self) -> Method:
        """Loads what the method needs."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model in a runtime."""

    name: str
    """The method's name in the report."""
    opener: Callable[[], Engine]
    """Opens the engine, in each process that measures. A run that is complete opens none."""
    source: str
    """The name of the model's file or folder."""
    digest: str
    """The SHA-256 of that."""
    size: int
    """The side of the model's pictures."""
    runtime: str
    """The runtime's name."""
    device: str
    """The device that computes."""
    precision: str
    """The precision that it computes in."""
    keypoints: str = "auto"
    """Which keypoints drive; see `Animator`."""

    @property
    def facts(self) -> dict[str, str]:
        """Digest, device, precision and which keypoints drive."""
        return {
            f"{self.name}: weights": f"{self.source}, SHA-256 {self.digest}",
            f"{self.name}: device": f"{self._device}, precision {self.precision}",
            f"{self.name}: keypoints": self.keypoints,
        }

    def stamp(self, pair: Pair) -> str:
        """Implements the method of `Spec`, which is documented there."""
        return f"{self.digest} {self._device} {self.precision} {self.keypoints}"

    @property
    def _device(self) -> str:
        return self.device if self.runtime == TORCH else f"{self.device} ({self.runtime})"

    def open(self) -> ModelMethod:
        """See Spec. Raises InputError as the opener does."""
        return ModelMethod(self.opener(), self.keypoints)


class ModelMethod:
    """Animates with a model, as `dagan animate --no-crop` does."""

    def __init__(self, engine: Engine, keypoints: str = "auto") -> None:
        self.engine = engine
        self.landmarker = FaceLandmarker() if engine.face.explicit(keypoints, engine.name) else None

    def begin(self, job: Job) -> Renderer:
        """Encodes the source."""
        return _ModelRenderer(self.engine, job, self.landmarker)


class _ModelRenderer:
    problem: str | None = None

    def __init__(self, engine: Engine, job: Job, landmarker: FaceLandmarker | None) -> None:
        self.engine, self.job, self.landmarker = engine, job, landmarker
        self.notices: list[str] = []
        if engine.size != job.size:
            self.notices.append(f"results of {engine.size} x {engine.size} pixels are resized to {job.size} x {job.size}")
        picture = to_square(job.source, engine.size)
        face = self._face(picture)
        self.landmarker = self.landmarker if face is not None else None  # As in `Animator`, no landmarks drive a source without a face.
        self.source = finite_source(engine, picture, engine.face.places(face, engine.size) if self.landmarker is not None else None)
        self.reference = None if job.reference is None else self._keypoints([to_square(job.reference, engine.size)])

    def render(self, numbers: Sequence[int], driving: Sequence[Image]) -> list[Image | None]:
        pictures: list[Image | None] = []
        for start in range(0, len(driving), self.engine.batch_size):
            batch = driving[start : start + self.engine.batch_size]
            keypoints = self._keypoints([to_square(image, self.engine.size) for image in batch])
            keypoints = transfer(
                self.source.keypoints, keypoints, self.reference or keypoints, self.reference is not None, self.job.adapt_scale,
                limit_motion=False, face=self.engine.face,
            )  # fmt: skip
            pictures += [to_square(image, self.job.size) for image in self.engine.render(self.source, keypoints)]
        return pictures

    def _keypoints(self, squares: list[Image]) -> Keypoints:
        found = self.engine.keypoints(squares)
        if self.landmarker is None:
            return found
        return self.engine.face.put(found, [self.engine.face.places(self._face(square), self.engine.size) for square in squares])

    def _face(self, square: Image) -> Face | None:
        return None if self.landmarker is None else next(iter(self.landmarker.detect(square, thorough=False)), None)


@dataclass(frozen=True)
class CopySpec:
    """The baseline that answers every frame with the source."""

    name: str = COPY
    facts: dict[str, str] = field(default_factory=dict)

    def stamp(self, pair: Pair) -> str:
        """Implements the method of `Spec`, which is documented there."""
        return ""

    def open(self) -> CopyMethod:
        """Implements the method of `Spec`, which is documented there."""
        return CopyMethod()


class CopyMethod:
    """The opened copy baseline; see CopySpec."""

    def begin(self, job: Job) -> Renderer:
        """Cuts the source to the measured square."""
        return _SameRenderer(to_square(job.source, job.size), [])


class _SameRenderer:
    """Answers every frame with one S x S picture."""

    problem: str | None = None

    def __init__(self, picture: Image, notices: list[str]) -> None:
        self.picture, self.notices = picture, notices

    def render(self, numbers: Sequence[int], driving: Sequence[Image]) -> list[Image | None]:
        return [self.picture] * len(numbers)


@dataclass(frozen=True)
class ResultsSpec:
    """Results of another program: videos or image folders below `folder`, frame by frame beside the driving clip.

    They are named like the pair ("SOURCE--DRIVING", also with one "-" or "_") or like the driving clip, without suffixes. The result of a
    frame pair may be an image too, "SOURCE@13--DRIVING@25.png". Raises InputError when the folder holds none.
    """

    name: str
    folder: Path

    def __post_init__(self) -> None:
        if not self.images:
            _ = self.files

    @cached_property
    def files(self) -> dict[str, Path]:
        """The videos and image folders by their names without suffix. Each is found by its path below the folder and by its file name."""
        return _by_name(find_clips(self.folder))

    @cached_property
    def images(self) -> dict[str, Path]:
        """The single images, likewise."""
        try:
            return _by_name(find_stills(self.folder))
        except InputError:  # There are none. Whether there is anything else, `files` tells.
            return {}

    def find(self, pair: Pair) -> Path | None:
        """Returns the pair's result, or None where there is none."""
        names = _result_names(pair)
        image = next((self.images[name] for name in names if name in self.images), None) if pair.driving_frame is not None else None
        if image is not None:
            return image
        driving = bare(pair.driving.name)
        try:
            return next((self.files[name] for name in (*names, driving, Path(driving).name) if name in self.files), None)
        except InputError:  # The folder holds single images alone.
            return None

    @property
    def facts(self) -> dict[str, str]:
        """The folder's name."""
        return {f"{self.name}: results": f"folder {self.folder.resolve().name}"}

    def stamp(self, pair: Pair) -> str:
        """Implements the method of `Spec`, which is documented there."""
        file = self.find(pair)
        return "" if file is None else stamp_of(file)

    def open(self) -> ResultsMethod:
        """Implements the method of `Spec`, which is documented there."""
        return ResultsMethod(self)


def _by_name(clips: Sequence[Clip]) -> dict[str, Path]:
    """Returns paths by the clips' names without suffix, whole and from the last slash on. Of two with one file name the first counts."""
    found: dict[str, Path] = {}
    for clip in clips:
        name = bare(clip.name)
        found.setdefault(Path(name).name, clip.path)
        found[name] = clip.path
    return found


def _result_names(pair: Pair) -> list[str]:
    """Returns what the result of a pair may be called, the most exact name first."""
    source, driving = bare(pair.source.name), bare(pair.driving.name)
    names = []
    for s, d in ((source, driving), (Path(source).name, Path(driving).name)):
        names += [pair.called(s, d, joint) for joint in _JOINTS]
        if pair.driving_frame is None:  # Else the name would not tell pairs of the same two clips apart.
            names += [f"{s}{joint}{d}" for joint in _JOINTS]
    return names


class ResultsMethod:
    """The opened folder of results; see ResultsSpec."""

    def __init__(self, spec: ResultsSpec) -> None:
        self.spec = spec

    def begin(self, job: Job) -> Renderer:
        """Finds the pair's result. Raises InputError where there is none."""
        file, pair = self.spec.find(job.pair), job.pair
        if file is None:
            source, driving = Path(bare(pair.source.name)).name, Path(bare(pair.driving.name)).name
            whole = pair.driving_frame is None
            wanted = driving if pair.same and whole else f"{source}--{driving}" if whole else pair.called(source, driving)
            raise InputError(f"no result: {self.spec.folder} holds no {'' if whole else 'image, '}video or image folder named {wanted!r}")
        if pair.driving_frame is not None and is_photo(file):
            return _SameRenderer(*_fitted(read_image(file), job.size))
        return _ResultsRenderer(file, job)


def _fitted(image: Image, size: int) -> tuple[Image, list[str]]:
    """Returns the middle square of a result at the measured size, and what was done for that."""
    height, width = image.shape[:2]
    cut = "" if height == width else "the middle of "
    notice = f"{cut}results of {width} x {height} pixels are resized to {size} x {size}"
    return to_square(image, size), [] if (height, width) == (size, size) else [notice]


class _ResultsRenderer:
    def __init__(self, file: Path, job: Job) -> None:
        self.size = job.size
        self.notices: list[str] = []
        self.problem: str | None = None
        length = count_frames(file)
        if length != job.plan.length:
            compared = f"result {file.name} has {length} frames, its driving clip {job.plan.length}"
            self.problem = f"{compared}: {'only these were' if length < job.plan.length else 'the frames beyond were not'} measured"
        self._frames: Iterator[tuple[int, Image]] = _read(file, job.plan.needed)
        self._ahead = next(self._frames, None)

    def render(self, numbers: Sequence[int], driving: Sequence[Image]) -> list[Image | None]:
        pictures: list[Image | None] = []
        for number in numbers:
            picture = None
            if self._ahead is not None and self._ahead[0] == number:
                picture = self._fit(self._ahead[1])
                self._ahead = next(self._frames, None)
            pictures.append(picture)
        return pictures

    def _fit(self, image: Image) -> Image:
        picture, notices = _fitted(image, self.size)
        self.notices = self.notices or notices
        return picture


def _read(file: Path, numbers: tuple[int, ...]) -> Iterator[tuple[int, Image]]:
    """Yields (number, picture) of the wanted frames of a result. The result is closed after the last of them."""
    with open_video(file) as video:
        yield from numbered(video, numbers)


def stamp_of(path: Path) -> str:
    """Returns the size and the time of change of a file, or of all files of a folder of images."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return " ".join(f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files)
