"""Finds clips and portraits in a folder, tells whom they show, and sets identities aside for validation.

Whom a clip shows is told by the folder layouts of published data sets:

- VoxCeleb1: `train/` and `test/` with clips `idXXXXX#VIDEO#START#END.mp4`, as files or as folders of frames.
- VoxCeleb2: `idXXXXX/VIDEO/00001.mp4`.
- HDTF: `NAME_000.mp4`, the pieces of one video numbered. In names that begin with WDA or WRA, digits at the end of NAME number several
  videos of one person; radio hosts (RD) have no other name than their number.
- CelebV: a folder of frames for each person, `PERSON/1.png` or `PERSON/Image/1.png`.
- plain: everything else. A number `idXXXXX` at the start of a folder's or file's name is the identity. Without one, everything in one
  folder shows one person, and a loose file a person of its own.

A layout is recognised by the clips' names. A table `metadata.csv` in the folder comes before any layout.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal, cast, get_args

from dagan.checks import printable
from dagan.errors import InputError
from dagan.media.images import IMAGE_SUFFIXES, Clip, is_animation

Layout = Literal["voxceleb1", "voxceleb2", "hdtf", "celebv", "plain"]
LayoutChoice = Literal["auto", "voxceleb1", "voxceleb2", "hdtf", "celebv", "plain"]
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts", ".ogv", ".3gp", ".wmv", ".flv")
) | {".gif", ".apng"}
# Data sets keep clips to train on and clips to test on in folders with these names.
TRAIN_PARTS = ("train", "training", "trainset")
TEST_PARTS = ("test", "testing", "testset", "val", "valid", "validation", "dev", "eval")

_NAMED = {
    "voxceleb1": "laid out as VoxCeleb1", "voxceleb2": "laid out as VoxCeleb2", "hdtf": "laid out as HDTF",
    "celebv": "laid out as CelebV, a folder of frames for each person", "plain": "identities by folders and file names",
}  # fmt: skip
_EXPECTED = {
    "voxceleb1": "id10280#VIDEO#001093#001192.mp4", "voxceleb2": "id00012/VIDEO/00001.mp4", "hdtf": "NAME_000.mp4",
    "celebv": "PERSON/1.png",
}  # fmt: skip
_NUMBER = re.compile(r"^(id\d+)(?=$|[#_.-])")
_VOXCELEB1 = re.compile(r"^(id\d+)#[^#]+(?:#\d+){1,2}$")
_PIECE = re.compile(r"^(.+)_\d{3}$")
_POLITICIAN = re.compile(r"^(W[DR]A_.*?[^\d])\d*$")


def bare(name: str) -> str:
    """Returns a clip's name without the suffix of a video or an image. Other dots stay, because folders may have them too."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES) else name


def with_identities(clips: Sequence[Clip], layout: str) -> list[Clip]:
    """Returns the clips with the identities that the layout tells; "auto" recognises it. Identities that are known already stay.

    Raises InputError for a layout that does not exist, and for one that none of the clips has.
    """
    chosen = choose(clips, layout)
    return [clip if clip.identity else replace(clip, identity=_identity(clip, chosen)) for clip in clips]


def choose(clips: Sequence[Clip], layout: str) -> Layout:
    """Returns the layout of clips: the given one, or the one that is recognised for "auto". Raises InputError as `with_identities` does."""
    if layout not in get_args(LayoutChoice):
        raise InputError(f"layout {layout!r} is unknown: must be one of {', '.join(get_args(LayoutChoice))}")
    if layout == "auto":
        return _recognised(clips)
    if layout != "plain" and clips and all(_told(clip, layout) is None for clip in clips):
        raise InputError(f"no clip is named as in layout {layout} ({_EXPECTED[layout]}), such as {clips[0].name}: give another, or auto")
    return cast(Layout, layout)


def in_words(folder: Path, clips: Sequence[Clip], layout: str) -> str:
    """Says in a few words where the identities of a folder's clips come from."""
    return "identities by metadata.csv" if (folder / "metadata.csv").is_file() else _NAMED[choose(clips, layout)]


def _recognised(clips: Sequence[Clip]) -> Layout:
    """Returns the layout that at least half of the clips have, or all of them where names prove little."""
    for layout in ("voxceleb1", "voxceleb2"):
        if 2 * sum(_told(clip, layout) is not None for clip in clips) >= max(1, len(clips)):
            return cast(Layout, layout)
    for layout in ("hdtf", "celebv"):
        found = {_told(clip, layout) for clip in clips}
        # Numbered files that all have one name, such as clip_000.mp4, may well show many people.
        if None not in found and len(found) > 1:
            return cast(Layout, layout)
    return "plain"


def _identity(clip: Clip, layout: Layout) -> str:
    """Returns whom a clip shows. One that is not named as the layout says is told as in the plain one."""
    told = _told(clip, layout)
    if told is not None:
        return told
    for part in PurePosixPath(clip.name).parts:
        if found := _NUMBER.match(part):
            return found[1]
    parts = _below_parts(PurePosixPath(clip.name).parts)
    return parts[0] if len(parts) > 1 else PurePosixPath(parts[0]).stem


def _told(clip: Clip, layout: str) -> str | None:
    """Returns the identity that a layout's naming tells, or None where the clip is not named so."""
    *folders, last = _below_parts(PurePosixPath(bare(clip.name)).parts)
    if layout == "voxceleb1":
        return found[1] if (found := _VOXCELEB1.match(last)) else None
    if layout == "voxceleb2":
        return folders[-2] if len(folders) > 1 and re.fullmatch(r"id\d+", folders[-2]) and last.isdigit() else None
    if layout == "hdtf":
        if folders or not (piece := _PIECE.match(last)):
            return None
        return found[1] if (found := _POLITICIAN.match(piece[1])) else piece[1]
    if layout == "celebv" and len(folders) <= 1 and (clip.still or clip.path.is_dir()):
        return folders[0] if folders else None if clip.still else last
    return None


def _below_parts(parts: Sequence[str]) -> Sequence[str]:
    """Leaves out leading folders that separate clips to train on from clips to test on."""
    for i, part in enumerate(parts[:-1]):
        if part.lower() not in TRAIN_PARTS + TEST_PARTS:
            return parts[i:]
    return parts[-1:] or ("",)


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
    tells whom clips show; see `dagan.data.clips`. Raises InputError where there are no clips, and for a layout that they do not have.
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
