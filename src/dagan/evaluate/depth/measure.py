"""Measures depth on clips: against exact ground truth on synthetic heads, and against the landmarker's z on real ones.

Depth that was learnt from video is known up to scale, and a network's disparity up to a factor and an offset. It is therefore aligned
before it is measured, by least squares on inverse depth inside the face. The factor may not be negative, because a hollow face must not
pass for a face. Figures are means over frames and then over clips, so that all clips count alike, whatever their length.

Legend: N frames, S side, H W image, n pixels of the face. True depth is in metres along the camera's z.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.stats import spearmanr

from dagan.data.clips import clips_for
from dagan.data.truth import read_truth, truth_of
from dagan.errors import InputError
from dagan.evaluate.depth.networks import DepthNetworks, open_networks
from dagan.evaluate.face_metrics import Landmarker, Landmarks
from dagan.evaluate.metrics import depth_rank_correlation
from dagan.media.video import open_video
from dagan.progress import Progress, silent

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

# Degrees. Surfaces that are seen at a flatter angle have no usable normals at the width of a pixel.
STEEPEST = 80.0
# The face's own range of depth lies between these percentiles of its depth.
RANGE = (1, 99)
# `Scores.delta` is the share of pixels whose depth is right within this factor, which is the usual one.
FACTOR = 1.25


@dataclass(frozen=True)
class Scores:
    """The figures of one frame. For spearman and delta more is better, for the others less."""

    spearman: float
    """The rank correlation of disparity with inverse depth, in [-1, 1]."""
    relief: float
    """The root mean square error of the aligned depth over the face's own range of depth."""
    normals: float
    """The mean angle to the true normals, in degrees."""
    abs_rel: float
    """The mean of |depth / true - 1| after scaling by the median alone."""
    delta: float
    """The share of pixels within FACTOR after scaling by the median alone."""


def score(
    disparity: Floats, depth: Floats, truth: Floats, face: Mask, focal: tuple[float, float], principal: tuple[float, float]
) -> Scores:  # fmt: skip
    """Measures one frame.

    Args:
        disparity: This is the network's disparity, H x W; near is large. It is known up to a factor and an offset.
        depth: This is the network's own depth, H x W, known up to scale.
        truth: This is the true depth, H x W, in metres.
        face: These are the pixels to measure, H x W. There must be at least two.
        focal, principal: These describe the true camera in pixels.
    """
    aligned = align(disparity, truth, face)
    seen, true = depth[face], truth[face]
    ratio = seen / true
    ratio = ratio / np.median(ratio)
    # A constant has no ranks, so it correlates with nothing.
    ranked = 0.0 if np.ptp(disparity[face]) == 0 else float(spearmanr(disparity[face], 1 / true).statistic)
    return Scores(
        spearman=ranked,
        relief=relief_error(aligned, truth, face),
        normals=normal_error(aligned, truth, face, focal, principal),
        abs_rel=float(np.abs(ratio - 1).mean()),
        delta=float((np.maximum(ratio, 1 / ratio) < FACTOR).mean()),
    )


def flat_scores(truth: Floats, face: Mask, focal: tuple[float, float], principal: tuple[float, float]) -> Scores:
    """Measures a flat disc that faces the camera. Its figures are those to beat."""
    flat = np.ones_like(truth)
    return score(flat, flat, truth, face, focal, principal)


def align(disparity: Floats, truth: Floats, face: Mask) -> Floats:
    """Returns depth in metres, H x W: 1 / (a disparity + b) with a >= 0, fitted to the truth's inverse inside the face."""
    seen, wanted = disparity[face].astype(np.float64), 1 / truth[face].astype(np.float64)
    centred = seen - seen.mean()
    spread = float(np.square(centred).sum())
    slope = max(0.0, float((centred * wanted).sum()) / spread) if spread > 0 else 0.0
    inverse = wanted.mean() + slope * (disparity - seen.mean())
    # Outside the face the fit may cross zero, but it must stay finite there.
    return 1 / np.maximum(inverse, 0.1 * wanted.min())


def relief_error(depth: Floats, truth: Floats, face: Mask) -> float:
    """Returns the root mean square error in the face over the face's own range of depth."""
    low, high = np.percentile(truth[face], RANGE)
    return float(np.sqrt(np.square(depth[face] - truth[face]).mean()) / (high - low))


def normal_error(depth: Floats, truth: Floats, face: Mask, focal: tuple[float, float], principal: tuple[float, float]) -> float:
    """Returns the mean angle in degrees between the normals of two depth maps.

    Pixels count that lie inside the face's edge and where the surface is not steeper than STEEPEST. It is nan where none is left.
    """
    true, seen = (surface_normals(z, focal, principal) for z in (truth, depth))
    inside = binary_erosion(face, np.ones((3, 3), bool)) & (-true[..., 2] > np.cos(np.radians(STEEPEST)))
    cosine = (true[inside] * seen[inside]).sum(-1)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()) if inside.any() else float("nan")


def surface_normals(depth: Floats, focal: tuple[float, float], principal: tuple[float, float]) -> Floats:
    """Returns H x W x 3 unit normals towards the camera, from central differences of the back-projected points."""
    height, width = depth.shape
    rows, columns = np.mgrid[0:height, 0:width]
    rays = np.stack([(columns - principal[0]) / focal[0], (rows - principal[1]) / focal[1], np.ones(depth.shape)], -1)
    points = rays * depth[..., None].astype(np.float64)
    normal = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)


def rotation_between(first: Floats, second: Floats) -> Floats:
    """Returns the 3 x 3 turn, in camera coordinates, from pose `first` to pose `second` of a head (3 x 3, head to camera)."""
    return second @ first.T


def angle_between(first: Floats, second: Floats) -> float:
    """Returns the degrees between two rotations."""
    return float(np.degrees(np.arccos(np.clip((np.trace(first.T @ second) - 1) / 2, -1, 1))))


Image = NDArray[np.uint8]
# Faces of fewer pixels are not measured, because they are turned away or out of the picture.
SMALLEST_FACE = 50
BATCH = 8
NAN = float("nan")


class GroundTruth(Protocol):
    """What is known of a synthetic clip: for each frame depth, face and the head's rotation; for the clip the camera (see `ClipTruth`)."""

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
class ShownFrame:
    """One frame for the report's pictures, with the network's disparity and depth.

    Focal length and principal point are in pixels; on real clips they are assumed, and the truth and the face's pixels are None.
    """

    image: Image
    disparity: NDArray[np.float32]
    depth: NDArray[np.float32]
    focal: tuple[float, float]
    principal: tuple[float, float]
    truth: NDArray[np.float32] | None = None
    face: NDArray[np.bool_] | None = None


@dataclass
class ClipDepth:
    """A clip's figures, each with that of its baseline.

    The baseline is a flat disc for depth, standing still for the rotation, the untrained camera for the focal length, and the true depth
    for the correlation with the landmarker.
    """

    name: str
    synthetic: bool
    """Whether its ground truth is known."""
    frames: int = 0
    missing_faces: int = 0
    """The number of frames in which the landmarker found no face."""
    figures: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """For each figure's name its value and its baseline in each frame."""
    shown: list[ShownFrame] = field(default_factory=list)
    """Frames for the report's pictures."""

    def add(self, name: str, value: float, baseline: float = NAN) -> None:
        """Adds a figure of one more frame."""
        self.figures.setdefault(name, []).append((value, baseline))

    def means(self) -> dict[str, tuple[float, float]]:
        """Returns each figure and its baseline by name, as means over the frames that have it."""
        means = {}
        for name, pairs in self.figures.items():
            known = np.array([pair for pair in pairs if np.isfinite(pair[0])])
            if len(known):
                means[name] = (float(known[:, 0].mean()), float(known[:, 1].mean()))
        return means


@dataclass(frozen=True)
class DepthSummary:
    """The figures over all clips."""

    weights: str
    """The name of the weights."""
    size: int
    """The side of the networks' pictures."""
    synthetic: dict[str, tuple[float, float]]
    """Each figure and its baseline by name, over synthetic clips. The baseline is nan where there is none."""
    real: dict[str, tuple[float, float]]
    """Each figure and its baseline by name, over real clips."""
    synthetic_clips: int
    real_clips: int
    frames: int
    missing_faces: int
    """The number of frames in which the landmarker found no face."""
    notes: tuple[str, ...]
    """What was left out, and why."""


def measure_depth(
    path: Path, networks: DepthNetworks, truth: GroundTruth | None, landmarks: Landmarker | None, *, every: int, gap: int, show: int = 0
) -> ClipDepth:  # fmt: skip
    """Measures each `every`-th frame of a clip. Motion is measured from each of these frames to the one `gap` frames later.

    `show` is the number of frames that are kept for pictures. Raises InputError where video and ground truth do not fit.
    """
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
    """Returns the means over clips. Synthetic and real ones are kept apart."""
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
    """Returns the indices to measure, and those frames, cut to a square. With a gap, the frames that many later are read too."""
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


def _shown(image: Image, disparity: NDArray[np.float32], networks: DepthNetworks, truth: GroundTruth | None, index: int) -> ShownFrame:
    depth = networks.metric(disparity)
    if truth is not None:
        return ShownFrame(image, disparity, depth, truth.focal, truth.principal, truth.depth[index], truth.face[index])
    # Nothing is known of a real camera, so it is taken to have the focal length that training starts from.
    side = image.shape[1]
    return ShownFrame(image, disparity, depth, (1.5 * side, 1.5 * side), ((side - 1) / 2, (side - 1) / 2))


def _against_truth(found: ClipDepth, shown: ShownFrame) -> None:
    assert shown.truth is not None
    assert shown.face is not None
    if shown.face.sum() < SMALLEST_FACE:
        return
    ours = score(shown.disparity, shown.depth, shown.truth, shown.face, shown.focal, shown.principal)
    flat = asdict(flat_scores(shown.truth, shown.face, shown.focal, shown.principal))
    for name, value in asdict(ours).items():
        found.add(name, value, flat[name])


def _against_landmarks(found: ClipDepth, shown: ShownFrame, landmarks: Landmarker | None) -> None:
    if landmarks is None:
        return
    points = landmarks(shown.image)
    if points is None:
        found.missing_faces += 1
        return
    # On synthetic heads one can see how well the landmarker itself knows depth.
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
            true = rotation_between(truth.rotation[a].astype(np.float64), truth.rotation[b].astype(np.float64))
            found.add("rotation", angle_between(motion.rotation, true), angle_between(np.eye(3), true))
            found.add("focal", abs(motion.focal[0] / true_focal - 1), abs(start / true_focal - 1))


@dataclass(frozen=True, kw_only=True)
class EvaluateDepthOptions:
    """How `dagan evaluate depth` measures."""

    weights: str = "lite-256"
    """A depth file, a checkpoint of stage 1, or what `dagan.load` takes."""
    egomotion: Path | None = None
    """A checkpoint of stage 1, for its motion and camera network."""
    output: Path | None = None
    size: int | None = None
    """The side of the networks' pictures; None takes the one that they were trained at."""
    every: int = 10
    """Each n-th frame is measured."""
    gap: int = 5
    """Motion is measured between frames that are so many apart."""
    clips: int | None = None
    """At most so many clips are measured, spread over the folder."""
    pictures: int = 6
    """Pictures are drawn of so many clips."""
    hold_out: float = 0.0
    """The share of identities that the training recipe holds out; they alone are measured. 0 measures all clips."""
    layout: str = "auto"
    """How names tell whom clips show; see `dagan.data.clips`."""
    device: str = "auto"
    overwrite: bool = False


def measure_folder(folder: Path, options: EvaluateDepthOptions, progress: Progress = silent) -> tuple[DepthSummary, list[ClipDepth]]:
    """Returns the figures over the clips of a folder, and each clip's. Raises InputError for missing clips or files."""
    _check(options)
    clips = clips_for(folder, options.hold_out, options.layout)
    if options.clips is not None and options.clips < len(clips):
        clips = [clips[i] for i in np.linspace(0, len(clips) - 1, options.clips).astype(int)]
    networks = open_networks(options.weights, options.egomotion, options.size, options.device)
    landmarks = Landmarks()
    found: list[ClipDepth] = []
    for number, clip in enumerate(clips):
        progress("measuring", number, len(clips))
        description = truth_of(clip.path)
        truth = read_truth(description) if description else None
        shown = 3 if options.output is not None and number < options.pictures else 0
        found.append(measure_depth(clip.path, networks, truth, landmarks, every=options.every, gap=options.gap, show=shown))
        found[-1].name = clip.name  # This is the path below the folder, because names in different sub-folders may be equal.
    notes = []
    if networks.egomotion is None and any(clip.synthetic for clip in found):
        notes.append("Pose and focal length are not measured: the motion network's weights are not there (--egomotion last.ckpt).")
    return summarise_depth(found, networks, notes), found


def _check(options: EvaluateDepthOptions) -> None:
    for name, value in (("--every", options.every), ("--gap", options.gap), ("--clips", options.clips)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: must be at least 1")
    if options.pictures < 0:
        raise InputError(f"--pictures is {options.pictures}: must not be negative")
    if options.output is not None and (options.output / "depth.json").exists() and not options.overwrite:
        raise InputError(f"{options.output} holds a report already: choose another folder, or replace it with --overwrite")
