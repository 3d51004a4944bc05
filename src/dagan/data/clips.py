"""Finds clips and portraits in a folder, tells whom they show, and sets identities aside for validation."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path

from dagan.data.layouts import TEST_PARTS, TRAIN_PARTS, VIDEO_SUFFIXES, with_identities
from dagan.errors import InputError
from dagan.media.kinds import IMAGE_SUFFIXES, Clip, is_animation
from dagan.names import printable


def refuse_mixed_parts(folder: Path, clips: Iterable[Clip]) -> None:
    """Raises InputError for the root of a data set, where clips to test on lie beside those to train on and would be trained on too."""
    parts = {place for clip in clips for place in Path(clip.name).parents if place.name}
    for train in sorted(place for place in parts if place.name.lower() in TRAIN_PARTS):
        for test in sorted(place for place in parts if place.parent == train.parent and place.name.lower() in TEST_PARTS):
            raise InputError(
                f"{folder} holds {folder / train} to train on and {folder / test} to test on, and both would be trained on: "
                f"name {folder / train} instead"
            )


def find_clips(folder: Path, layout: str = "auto", least: int = 2) -> list[Clip]:
    """Finds all videos and image folders (of `least` images or more) below `folder`, by name.

    Animated WebP and PNG are videos too. Where the first image of a folder is one, the other images are looked into as well. `layout`
    tells whom clips show; see `dagan.data.layouts`. Raises InputError where there are no clips, and for a layout that they do not have.
    """
    files = _files(folder)
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    images: dict[Path, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            images.setdefault(path.parent, []).append(path)
    folders = []
    for parent, members in images.items():
        animated = [p for p in members if is_animation(p)] if is_animation(min(members)) else []
        videos += animated
        if len(members) - len(animated) >= least:
            folders.append(parent)
    if not videos and not folders:
        raise InputError(f"{folder} holds no video files and no folders of images: name a folder with clips such as .mp4 files")
    identities = _metadata(folder)
    return with_identities([_clip(folder, path, identities, still=False) for path in sorted(videos + folders)], layout)


def find_stills(folder: Path, layout: str = "auto") -> list[Clip]:
    """Finds all images below `folder`, by name. Raises InputError where there are none, and for a layout that they do not have."""
    images = sorted(p for p in _files(folder) if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise InputError(f"{folder} holds no images: name a folder with .jpg or .png portraits")
    identities = _metadata(folder)
    return with_identities([_clip(folder, path, identities, still=True) for path in images], layout)


def held_out(identities: Iterable[str], share: float) -> frozenset[str]:
    """Chooses about `share` of the identities by a hash of their names, so that the choice does not change when others come or go.

    A share above 0 holds out at least one of two or more identities, so that small sets are validated too.
    """
    names = set(identities)
    if share == 0 or len(names) < 2:
        return frozenset()
    order = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64 for name in names}
    chosen = frozenset(name for name, place in order.items() if place < share)
    if not chosen:
        return frozenset({min(names, key=order.__getitem__)})
    return chosen if len(chosen) < len(names) else chosen - {max(names, key=order.__getitem__)}


def clips_for(folder: Path, hold_out: float, layout: str = "auto", least: int = 2) -> list[Clip]:
    """Finds the clips of the identities that `held_out` chooses, or all clips for 0; see `find_clips`.

    Raises InputError for what is no share, and as `find_clips` does.
    """
    if not 0 <= hold_out <= 1:
        raise InputError(f"--hold-out is {hold_out}: must be in [0, 1]")
    clips = find_clips(folder, layout, least)
    names = held_out({clip.identity for clip in clips}, hold_out)
    return [clip for clip in clips if clip.identity in names] if hold_out else clips


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else f"does not exist (seen from {Path.cwd()})"
        raise InputError(f"data folder {folder} {fault}: give the path of a folder with clips")
    return [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]


def _metadata(folder: Path) -> dict[str, str]:
    table = folder / "metadata.csv"
    if not table.is_file():
        return {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"file", "identity"} - set(reader.fieldnames or ())
            if missing:
                raise InputError(f"{table} has no column {' and no column '.join(sorted(missing))}: it needs 'file' and 'identity'")
            return {row["file"]: row["identity"] for row in reader}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is no CSV file ({error}): write the columns 'file' and 'identity', or remove it") from None


def _clip(root: Path, path: Path, identities: dict[str, str], still: bool) -> Clip:
    """Makes a clip. Its identity stays empty, for the layout to tell, where the table does not know it."""
    name = printable(path.relative_to(root).as_posix())
    return Clip(path, name, identities.get(name) or identities.get(path.name) or "", still)
