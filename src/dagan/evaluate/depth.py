"""Depth on clips: against exact ground truth on synthetic heads, against the landmarker's z on real ones.

Legend: N frames, S side, H W image. Figures are means over frames, then over clips: clips weigh alike, whatever their length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dagan.errors import InputError
from dagan.evaluate import depth_metrics as metrics
from dagan.evaluate.depth_networks import DepthNetworks
from dagan.evaluate.faces import Landmarker
from dagan.evaluate.metrics import depth_rank_correlation
from dagan.media.video import open_video

Image = NDArray[np.uint8]
# Faces of fewer pixels are not measured: turned away, or out of the picture.
SMALLEST_FACE = 50
BATCH = 8
NAN = float("nan")


class GroundTruth(Protocol):
    """What is known of a synthetic clip (`data.synthetic.files.ClipTruth`): per frame depth in metres, the face's pixels, the head's
    rotation; focal length and principal point in pixels."""

    @property
    def depth(self) -> NDArray[np.float32]: ...
    @property
    def face(self) -> NDArray[np.bool_]: ...
    @property
    def rotation(self) -> NDArray[np.float32]: ...
    @property
    def focal(self) -> tuple[float, float]: ...
    @property
    def principal(self) -> tuple[float, float]: ...


@dataclass(frozen=True)
class Shown:
    """One frame for the pictures. truth, face: None on real clips. focal, principal: pixels, true or assumed."""

    image: Image
    disparity: NDArray[np.float32]
    depth: NDArray[np.float32]
    focal: tuple[float, float]
    principal: tuple[float, float]
    truth: NDArray[np.float32] | None = None
    face: NDArray[np.bool_] | None = None


@dataclass
class ClipDepth:
    """A clip's figures, each with that of its baseline: a flat disc for depth, standing still for the rotation, the untrained camera for
    the focal length, the truth itself for the landmarker. frames: measured. missing_faces: frames where the landmarker found none."""

    name: str
    synthetic: bool
    frames: int = 0
    missing_faces: int = 0
    figures: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)

    def add(self, name: str, value: float, baseline: float = NAN) -> None:
        """One more frame's figure."""
        self.figures.setdefault(name, []).append((value, baseline))

    def means(self) -> dict[str, tuple[float, float]]:
        """Name -> (figure, baseline) over the frames that have it."""
        means = {}
        for name, pairs in self.figures.items():
            known = np.array([pair for pair in pairs if np.isfinite(pair[0])])
            if len(known):
                means[name] = (float(known[:, 0].mean()), float(known[:, 1].mean()))
        return means


@dataclass(frozen=True)
class DepthSummary:
    """synthetic, real: name -> (figure, baseline; nan where there is none) over the clips of that kind. notes: what was left out,
    and why."""

    weights: str
    size: int
    synthetic: dict[str, tuple[float, float]]
    real: dict[str, tuple[float, float]]
    synthetic_clips: int
    real_clips: int
    frames: int
    missing_faces: int
    notes: tuple[str, ...]


def measure_depth(
    path: Path, networks: DepthNetworks, truth: GroundTruth | None, landmarks: Landmarker | None, *, every: int, gap: int, show: int = 0
) -> ClipDepth:  # fmt: skip
    """Measures each `every`-th frame of a clip; motion between frames `gap` apart, from each measured frame on. show: frames kept for
    pictures. Raises InputError where video and ground truth do not fit."""
    found = ClipDepth(path.name, truth is not None)
    indices, images = _frames(path, every, gap if truth is not None and networks.egomotion is not None else 0)
    if truth is not None and (max(images) >= len(truth.depth) or truth.depth.shape[1:] != images[0].shape[:2]):
        raise InputError(f"{path} does not fit its ground truth: write the clip again with `dagan synth`")
    kept = set(np.linspace(0, len(indices) - 1, min(show, len(indices))).astype(int).tolist())
    for first in range(0, len(indices), BATCH):
        group = indices[first : first + BATCH]
        disparities = networks.disparity(np.stack([images[i] for i in group]))
        for place, (i, disparity) in enumerate(zip(group, disparities, strict=True), first):
            shown = _shown(images[i], disparity, networks, truth, i)
            if truth is not None:
                _against_truth(found, shown)
            _against_landmarks(found, shown, landmarks)
            found.frames += 1
            if place in kept:
                found.shown.append(shown)
    if truth is not None and networks.egomotion is not None:
        _motion(found, networks, truth, images, [(i, i + gap) for i in indices if i + gap in images])
    return found


def summarise_depth(clips: Sequence[ClipDepth], networks: DepthNetworks, notes: Iterable[str]) -> DepthSummary:
    """Means over clips, synthetic and real ones apart."""
    kinds = {kind: [clip for clip in clips if clip.synthetic is kind] for kind in (True, False)}
    return DepthSummary(
        networks.name, networks.size, _table(kinds[True]), _table(kinds[False]), len(kinds[True]), len(kinds[False]),
        sum(clip.frames for clip in clips), sum(clip.missing_faces for clip in clips), tuple(notes),
    )  # fmt: skip


def _table(clips: Sequence[ClipDepth]) -> dict[str, tuple[float, float]]:
    means = [clip.means() for clip in clips]
    names = list(dict.fromkeys(name for each in means for name in each))
    table = {}
    for name in names:
        figure, baseline = np.mean([each[name] for each in means if name in each], axis=0)
        table[name] = (float(figure), float(baseline))
    return table


def _frames(path: Path, every: int, gap: int) -> tuple[list[int], dict[int, Image]]:
    """Indices to measure, and the frames of those and (with a gap) of their partners, cut to a square."""
    images: dict[int, Image] = {}
    indices = []
    with open_video(path) as video:
        for frame in video:
            if frame.index % every == 0:
                indices.append(frame.index)
            if frame.index % every == 0 or (gap and frame.index >= gap and (frame.index - gap) % every == 0):
                images[frame.index] = _square(frame.filled)
    return indices, images


def _square(image: Image) -> Image:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _shown(image: Image, disparity: NDArray[np.float32], networks: DepthNetworks, truth: GroundTruth | None, index: int) -> Shown:
    depth = networks.metric(disparity)
    if truth is not None:
        return Shown(image, disparity, depth, truth.focal, truth.principal, truth.depth[index], truth.face[index])
    # Of a real camera nothing is known: the focal length training starts from.
    side = image.shape[1]
    return Shown(image, disparity, depth, (1.5 * side, 1.5 * side), ((side - 1) / 2, (side - 1) / 2))


def _against_truth(found: ClipDepth, shown: Shown) -> None:
    assert shown.truth is not None
    assert shown.face is not None
    if shown.face.sum() < SMALLEST_FACE:
        return
    ours = metrics.score(shown.disparity, shown.depth, shown.truth, shown.face, shown.focal, shown.principal)
    flat = asdict(metrics.flat_scores(shown.truth, shown.face, shown.focal, shown.principal))
    for name, value in asdict(ours).items():
        found.add(name, value, flat[name])


def _against_landmarks(found: ClipDepth, shown: Shown, landmarks: Landmarker | None) -> None:
    if landmarks is None:
        return
    points = landmarks(shown.image)
    if points is None:
        found.missing_faces += 1
        return
    # How well the landmarker itself knows depth shows on synthetic heads.
    own = NAN if shown.truth is None else depth_rank_correlation(1 / shown.truth, points)
    found.add("landmarker", depth_rank_correlation(shown.disparity, points), own)


def _motion(found: ClipDepth, networks: DepthNetworks, truth: GroundTruth, images: dict[int, Image], pairs: list[tuple[int, int]]) -> None:
    assert networks.egomotion is not None
    width = truth.depth.shape[2]
    true_focal = truth.focal[0] / width
    start = networks.egomotion.config.focal
    for first in range(0, len(pairs), BATCH):
        group = pairs[first : first + BATCH]
        seen = networks.motions(np.stack([images[a] for a, _ in group]), np.stack([images[b] for _, b in group]))
        for (a, b), motion in zip(group, seen, strict=True):
            true = metrics.rotation_between(truth.rotation[a].astype(np.float64), truth.rotation[b].astype(np.float64))
            found.add("rotation", metrics.angle_between(motion.rotation, true), metrics.angle_between(np.eye(3), true))
            found.add("focal", abs(motion.focal[0] / true_focal - 1), abs(start / true_focal - 1))
