"""Measures depth on clips: against exact ground truth on synthetic heads, and against the landmarker's z on real ones. Writes the reports.

Figures are means over frames and then over clips, so that all clips count alike, whatever their length. Reports are JSON, Markdown, and
pictures of input, depth, normals and error.

Legend: N frames, S side, H W image. True depth is in metres along the camera's z.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagan.checks import json_text, printable
from dagan.data.clips import clips_for
from dagan.data.truth import read_truth, truth_of
from dagan.errors import InputError
from dagan.evaluate import metrics
from dagan.evaluate.depth_networks import DepthNetworks, GroundTruth, ShownFrame, open_networks
from dagan.evaluate.face_metrics import Landmarker, Landmarks
from dagan.evaluate.metrics import Image, angle_between, depth_rank_correlation, depth_scores, flat_depth_scores, rotation_between
from dagan.media.colour import colour_table, colourise, robust_range
from dagan.media.images import write_image
from dagan.media.output import atomic_output
from dagan.media.video import open_video
from dagan.progress import Progress, silent

# Faces of fewer pixels are not measured, because they are turned away or out of the picture.
SMALLEST_FACE = 50
BATCH = 8
NAN = float("nan")


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
    ours = depth_scores(shown.disparity, shown.depth, shown.truth, shown.face, shown.focal, shown.principal)
    flat = asdict(flat_depth_scores(shown.truth, shown.face, shown.focal, shown.principal))
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


# For each figure this is its heading, what its baseline is, and the number of digits after the point.
ROWS = {
    "spearman": ("Rank correlation (Spearman), more is better", "flat disc", 3),
    "relief": ("Relief error: RMSE after aligning, share of the face's depth range", "flat disc", 3),
    "normals": ("Normals: mean angle, degrees", "flat disc", 1),
    "abs_rel": ("Absolute relative error (says little: see the flat disc)", "flat disc", 4),
    "delta": ("Share within a factor of 1.25 (says little: see the flat disc)", "flat disc", 3),
    "rotation": ("Pose: error of the rotation between two frames, degrees", "standing still", 2),
    "focal": ("Focal length: relative error", "start of training", 3),
    "landmarker": ("Rank correlation with the landmarker's z, more is better", "true depth", 3),
}
# The colours of the error map end at this share of the face's range of depth.
WORST = 0.25
_GREY = np.array([60, 60, 60], np.uint8)


def write_reports(folder: Path, summary: DepthSummary, clips: Sequence[ClipDepth], overwrite: bool) -> list[Path]:
    """Writes depth.json, depth.md and one picture for each clip with frames to show. Returns the files."""
    files = [folder / "depth.json", folder / "depth.md"]
    note = asdict(summary) | {"clips": [{"clip": c.name, "synthetic": c.synthetic, "frames": c.frames, **_plain(c.means())} for c in clips]}
    note |= {"synthetic": _plain(summary.synthetic), "real": _plain(summary.real)}
    with atomic_output(files[0], overwrite) as partial:
        partial.write_text(json_text(note), encoding="utf-8")
    pictures = []
    for clip in clips:
        if clip.shown:
            named = Path(clip.name)
            stem = named.with_suffix("").as_posix().replace("/", "_") if named.name else "all"  # The name is empty for the folder itself.
            pictures.append(folder / "pictures" / f"{stem}.png")
            write_image(pictures[-1], picture(clip), overwrite)
    with atomic_output(files[1], overwrite) as partial:
        partial.write_text(printable(markdown(summary, [path.relative_to(folder) for path in pictures])), encoding="utf-8")
    return files + pictures


def markdown(summary: DepthSummary, pictures: Sequence[Path] = ()) -> str:
    """Returns the summary as a page, with one table for synthetic and one for real clips."""
    about = f"Weights: {summary.weights}, pictures of {summary.size} x {summary.size}; {summary.frames} frames measured."
    lines = ["# Depth", "", about, ""]
    for title, count, table in (
        ("Synthetic heads, exact ground truth, inside the face", summary.synthetic_clips, summary.synthetic),
        ("Real clips", summary.real_clips, summary.real),
    ):
        if count:
            lines += [f"## {title}", "", f"{count} clips.", "", "| figure | value | baseline | baseline is |", "| --- | --- | --- | --- |"]
            lines += [f"| {' | '.join(row)} |" for row in rows(table)] + [""]
    lines += [*(f"- {note}" for note in summary.notes), *([""] if summary.notes else [])]
    if pictures:
        columns = "input, then on synthetic clips true depth, depth, true normals, normals, error; on real clips depth, normals"
        lines += [f"Pictures: {columns}.", ""]
        lines += [f"![{path.stem}]({path.as_posix()})" for path in pictures]
    return "\n".join(lines).rstrip() + "\n"


def rows(table: dict[str, tuple[float, float]]) -> list[tuple[str, str, str, str]]:
    """Returns heading, figure, baseline and what the baseline is, for each figure of a table, in the order of ROWS."""
    out = []
    for name, (heading, baseline_is, digits) in ROWS.items():
        if name in table:
            figure, baseline = table[name]
            known = math.isfinite(baseline)
            out.append((heading, f"{figure:.{digits}f}", f"{baseline:.{digits}f}" if known else "", baseline_is if known else ""))
    return out


def picture(clip: ClipDepth) -> Image:
    """Returns a picture with one row for each shown frame."""
    return np.concatenate([np.concatenate(_columns(shown), axis=1) for shown in clip.shown])


def _columns(shown: ShownFrame) -> list[Image]:
    colours = colour_table()
    if shown.truth is None or shown.face is None:
        depth = colourise(shown.disparity, *robust_range(shown.disparity), colours)
        return [shown.image, depth, _normals(shown.depth, shown)]
    if not shown.face.any():
        return [shown.image] * 6
    aligned = metrics.align_depth(shown.disparity, shown.truth, shown.face)
    # Truth and result have one scale, that of the head, because the wall behind would take up all colours.
    low, high = robust_range(1 / shown.truth[shown.face])
    low -= 0.5 * (high - low)
    error = np.abs(aligned - shown.truth) / np.ptp(np.percentile(shown.truth[shown.face], metrics.RANGE))
    off = colourise(error, 0, WORST, colour_table("turbo"))
    return [
        shown.image, colourise(1 / shown.truth, low, high, colours), colourise(1 / aligned, low, high, colours),
        _inside(_normals(shown.truth, shown), shown), _inside(_normals(aligned, shown), shown), _inside(off, shown),
    ]  # fmt: skip


def _normals(depth: NDArray[np.floating], shown: ShownFrame) -> Image:
    """Shows normals as colours: right is red, up is green, and towards the camera is blue."""
    normal = metrics.surface_normals(depth, shown.focal, shown.principal) * [1, -1, -1]
    return np.clip(127.5 + 127.5 * normal, 0, 255).astype(np.uint8)


def _inside(image: Image, shown: ShownFrame) -> Image:
    assert shown.face is not None
    return np.where(shown.face[..., None], image, _GREY)


def _plain(table: dict[str, tuple[float, float]]) -> dict[str, dict[str, float | None]]:
    """Returns a table as JSON has it, with null instead of nan."""
    return {n: {"value": v, "baseline": b if math.isfinite(b) else None} for n, (v, b) in table.items()}
