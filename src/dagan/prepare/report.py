"""Tells what became of raw videos: tables of clips, report.json, report.md, and contact sheets to look at."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dagan.checks import json_text, printable
from dagan.media.images import write_image
from dagan.media.output import atomic_output
from dagan.prepare.identities import Split
from dagan.prepare.raws import REASONS
from dagan.prepare.video import STRIP, STRIP_SIDE

COLUMNS = (
    "file", "identity", "frames", "seconds", "source", "start", "box", "angle", "face_height_px_before_resize", "max_yaw_deg",
    "mouth_open_max", "blink", "gaze_range",
)  # fmt: skip
_ACROSS, _DOWN = 2, 20  # So many strips stand on a contact sheet.
_LABEL = 16  # The height of what is written below a strip, in pixels.
_MOST = 400  # Of more clips so many are shown, evenly spaced.

Record = Mapping[str, Any]


def write_metadata(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the table of the clips of one folder."""
    with atomic_output(path, overwrite=True) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_report(
    folder: Path, records: Sequence[Record], outside: Sequence[Record], split: Split, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes report.json and report.md. Returns the totals.

    `outside` holds what was left out before any video was opened, with "source", "reason" and "found".
    """
    totals = _totals(records, outside, split)
    content = {
        "totals": totals, "settings": settings, "moved": split.moved, "leaks_checked": split.checked,
        "videos": [_of_video(record, split) for record in records], "outside": outside,
    }  # fmt: skip
    texts = {"report.json": json_text(content), "report.md": _markdown(content, outside)}
    for name, text in texts.items():
        with atomic_output(folder / name, overwrite=True) as partial:
            partial.write_text(printable(text), encoding="utf-8")
    return totals


def _totals(records: Sequence[Record], outside: Sequence[Record], split: Split) -> dict[str, Any]:
    clips = [clip for record in records for clip in record["clips"]]
    left_out = [entry for record in records for entry in record["rejections"]]
    counts = Counter(entry["reason"] for entry in (*left_out, *outside))
    seconds: Counter[str] = Counter()
    for entry in left_out:
        seconds[entry["reason"]] += entry["end"] - entry["start"]
    held = sum(split.identities[clip["name"]] in split.held for clip in clips)
    return {
        "videos": len(records), "clips": len(clips), "frames": sum(clip["frames"] for clip in clips),
        "seconds": round(sum(clip["seconds"] for clip in clips), 2), "identities": len(set(split.identities.values())),
        "held_identities": len(split.held), "held_clips": held,
        "left_out": {reason: counts[reason] for reason in REASONS if counts[reason]},
        "left_out_seconds": {reason: round(seconds[reason], 2) for reason in REASONS if seconds[reason]},
    }  # fmt: skip


def _of_video(record: Record, split: Split) -> dict[str, Any]:
    clips = [{**clip, "identity": split.identities[clip["name"]], "embedding": None} for clip in record["clips"]]
    for clip in clips:
        del clip["embedding"]
    return {**record, "clips": clips}


def _markdown(content: Mapping[str, Any], outside: Sequence[Record]) -> str:
    totals = content["totals"]
    lines = [
        "# Prepared clips", "",
        f"{totals['clips']} clips of {totals['identities']} identities, {totals['seconds']:.1f} s, {totals['frames']} frames, from "
        f"{totals['videos']} raw videos. {totals['held_clips']} clips of {totals['held_identities']} identities are set aside for testing.",
        "", "## Left out", "", "| reason | pieces | seconds | what it means |", "| --- | ---: | ---: | --- |",
    ]  # fmt: skip
    for reason, count in totals["left_out"].items():
        lines.append(f"| {reason} | {count} | {totals['left_out_seconds'].get(reason, 0):.1f} | {REASONS[reason]} |")
    if content["moved"]:
        lines += ["", "## Not set aside, because too similar to somebody who is trained on", ""]
        lines += [f"- {identity} is like {other} (cosine {cosine:.2f})" for identity, other, cosine in content["moved"]]
    if totals["held_identities"] and not content["leaks_checked"]:
        lines += [
            "", "Whether somebody who is set aside is trained on under another name was not checked, for want of a face network: name a "
            "network with --identity.",
        ]  # fmt: skip
    lines += ["", "## Videos", "", "| raw video | clips | left out |", "| --- | ---: | --- |"]
    for record in content["videos"]:
        told = [_said(entry) for entry in record["rejections"]] + record.get("notes", [])
        lines.append(f"| {_cell(record['source'])} | {len(record['clips'])} | {_cell('; '.join(told))} |")
    lines += [f"| {_cell(entry['source'])} | 0 | {_cell(entry['reason'])}: {_cell(entry['found'])} |" for entry in outside]
    return "\n".join(lines) + "\n"


def _said(entry: Record) -> str:
    place = f" at {entry['start']:.2f} to {entry['end']:.2f} s" if entry["end"] else ""
    return f"{entry['reason']}{place}{': ' if entry['found'] else ''}{entry['found']}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write_sheets(folder: Path, name: str, strips: Sequence[tuple[Path, str]]) -> list[Path]:
    """Writes contact sheets, "name-1.png" and so on, of strips (JPEG files) and what is written below each. Removes older ones."""
    for old in folder.glob(f"{name}-*.png"):
        old.unlink()
    places = np.linspace(0, len(strips) - 1, min(len(strips), _MOST)).round().astype(int).tolist()
    shown = [strips[place] for place in places]
    each = _ACROSS * _DOWN
    files = []
    for number, start in enumerate(range(0, len(shown), each), 1):
        files.append(folder / f"{name}-{number}.png")
        write_image(files[-1], _sheet(shown[start : start + each]), overwrite=True)
    return files


def _sheet(strips: Sequence[tuple[Path, str]]) -> np.ndarray:
    from PIL import Image, ImageDraw

    width, height = STRIP * STRIP_SIDE + 4, STRIP_SIDE + _LABEL
    sheet = Image.new("RGB", (_ACROSS * width, -(-len(strips) // _ACROSS) * height), (24, 24, 24))
    pen = ImageDraw.Draw(sheet)
    for i, (path, text) in enumerate(strips):
        x, y = i % _ACROSS * width, i // _ACROSS * height
        with Image.open(path) as strip:
            sheet.paste(strip, (x, y))
        # The built-in font has few letters, and a name may have any.
        pen.text((x + 2, y + STRIP_SIDE + 2), text.encode("ascii", "replace").decode()[:88], fill=(230, 230, 230))
    return np.asarray(sheet)
