"""Writes the reports of `dagan evaluate depth`: JSON, Markdown, and pictures of input, depth, normals and error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagan.checks import json_text, printable
from dagan.evaluate.depth import measure as metrics
from dagan.evaluate.depth.measure import ClipDepth, DepthSummary, ShownFrame
from dagan.media.colour import colour_table, colourise, robust_range
from dagan.media.images import write_image
from dagan.media.output import atomic_output

Image = NDArray[np.uint8]
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
    aligned = metrics.align(shown.disparity, shown.truth, shown.face)
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
