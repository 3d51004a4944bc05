"""Moving pictures in and out: `open_video` reads a file or a folder of images, `VideoWriter` writes a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from dagan.media.animation_reader import AnimationReader
from dagan.media.image_folder import FolderReader
from dagan.media.kinds import is_animation, is_photo
from dagan.media.reader import Frame, VideoReader
from dagan.media.video_file import FileReader
from dagan.media.writer import VideoWriter

__all__ = ["Frame", "VideoReader", "VideoWriter", "open_video"]


def open_video(path: Path | str, rate: Fraction | int = 25, threads: bool = True) -> VideoReader:
    """Opens a video file, an animated picture, or a folder of images as a video of `rate` frames a second (files have their own).

    A file is opened as what it holds, whatever its name says; a photo is a video of one frame. threads: whether a decoder may use
    several. Raises InputError when the path is missing, empty, no video, cut off before its first frame, or a folder without images.
    """
    path = Path(path)
    if is_animation(path):
        return AnimationReader(path)
    return FolderReader(path, Fraction(rate)) if path.is_dir() or is_photo(path) else FileReader(path, threads)
