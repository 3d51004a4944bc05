"""The job that writes synthetic clips with ground truth, one after the other or several at once.

Clip i of a seed is the same however many are asked for. So a folder can grow, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from dagan.data.truth import ClipTruth, recipe_of, write_truth
from dagan.errors import InputError
from dagan.media.video import VideoWriter
from dagan.progress import Progress, silent
from dagan.synthetic.render import HeadRenderer, find_landmarks, locate
from dagan.synthetic.scene import draw_scene

RATE = 25  # Frames a second.
VERSION = 1  # This is the version of the heads. A change that alters pictures or ground truth for a seed must raise it.
SMALLEST, LARGEST = 32, 1024  # The side of a clip's pictures, in pixels, lies between these.
LONGEST = 2000  # Frames. The ground truth of a whole clip is in memory, which limits its length.
_QUALITY = 14  # This is better than the usual 18, so that compression keeps the skin's texture.


@dataclass(frozen=True)
class ClipRecipe:
    """What a clip is drawn from. Equal recipes give equal clips."""

    seed: int
    clip: int
    """The number of the clip within the seed."""
    size: int
    """The side of the pictures in pixels."""
    frames: int
    """The number of frames, at RATE a second."""
    version: int = VERSION


def synthesise(
    output: Path, clips: int, size: int, seed: int, frames: int, *, overwrite: bool = False, workers: int = 1,
    progress: Progress = silent,
) -> tuple[int, int]:  # fmt: skip
    """Writes clips 0 to clips - 1 to the folder `output`. Returns how many were written and how many were there already.

    A clip that is there and was drawn from the same recipe is kept. `progress` is told of each clip. Raises InputError for values out of
    range, and, without `overwrite`, for a clip that is there but was drawn from another recipe.
    """
    _check(output, clips, size, seed, frames, workers)
    recipes = [ClipRecipe(seed, number, size, frames) for number in range(clips)]
    paths = [output / f"head_{seed}_{number:05d}.mp4" for number in range(clips)]
    waiting = [(path, recipe) for path, recipe in zip(paths, recipes, strict=True) if not _is_there(path, recipe, overwrite)]
    output.mkdir(parents=True, exist_ok=True)
    done = clips - len(waiting)
    progress("heads", done, clips)
    if workers == 1 or len(waiting) < 2:
        for path, recipe in waiting:
            write_clip(path, recipe)
            done += 1
            progress("heads", done, clips)
    else:
        # Processes are spawned and not forked, because the parent may hold threads of numeric libraries.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(write_clip, path, recipe) for path, recipe in waiting]
            try:
                for future in as_completed(futures):
                    future.result()
                    done += 1
                    progress("heads", done, clips)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return len(waiting), clips - len(waiting)


def write_clip(path: Path, recipe: ClipRecipe) -> None:
    """Renders one clip and writes its three files, the description last."""
    scene = draw_scene(recipe.seed, recipe.clip, recipe.size, recipe.frames, RATE)
    renderer, marks = HeadRenderer(scene), find_landmarks(scene)
    depth, label, poses, seen = [], [], [], []
    path.with_suffix(".json").unlink(missing_ok=True)
    with VideoWriter(path, recipe.size, recipe.size, rate=RATE, crf=_QUALITY, overwrite=True) as video:
        for index in range(recipe.frames):
            view = renderer.frame(index)
            video.write(view.image, Fraction(index, RATE))
            depth.append(view.depth)
            label.append(view.label)
            poses.append(view.pose)
            seen.append(locate(marks, scene, view))
    camera = scene.camera
    truth = ClipTruth(
        depth=np.stack(depth),
        label=np.stack(label),
        rotation=np.stack([pose.rotation for pose in poses]).astype(np.float32),
        translation=np.stack([pose.translation for pose in poses]).astype(np.float32),
        focal=(camera.focal, camera.focal),
        principal=(camera.cx, camera.cy),
        landmarks=np.stack([np.column_stack([each.pixels, each.depth]) for each in seen]),
        visible=np.stack([each.visible for each in seen]),
        landmark_names=marks.names,
        rate=float(RATE),
        recipe=asdict(recipe),
    )
    try:
        write_truth(path, truth)
    except BaseException:
        for suffix in (".mp4", ".npz"):
            path.with_suffix(suffix).unlink(missing_ok=True)
        raise


def _is_there(path: Path, recipe: ClipRecipe, overwrite: bool) -> bool:
    """Says whether the clip is there, whole, and drawn from `recipe`. Raises InputError where another clip has its name."""
    if overwrite:
        return False
    found = recipe_of(path.with_suffix(".json"))
    if found is None:
        if path.exists():
            raise InputError(f"{path} is there without its description: remove it, or replace it with --overwrite")
        return False
    if found != asdict(recipe):
        raise InputError(f"{path} is another clip (other size, length or version): choose another folder, or replace it with --overwrite")
    return True


def _check(output: Path, clips: int, size: int, seed: int, frames: int, workers: int) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file: give the name of a folder")
    for name, value, low, high in (
        ("--clips", clips, 1, 1_000_000), ("--size", size, SMALLEST, LARGEST), ("--seed", seed, 0, 2**31 - 1),
        ("--frames", frames, 2, LONGEST), ("--workers", workers, 1, 1024),
    ):  # fmt: skip
        if not low <= value <= high:
            raise InputError(f"{name} is {value}: must be from {low} to {high}")
    if size % 2:
        raise InputError(f"--size is {size}: must be even, as videos are")
