"""Moving pictures in and out: `open_video` reads a file or a folder of images, `VideoWriter` writes a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from dagan.media.image_folder import FolderReader
from dagan.media.reader import Frame, VideoReader
from dagan.media.video_file import FileReader
from dagan.media.writer import VideoWriter

__all__ = ["Frame", "VideoReader", "VideoWriter", "open_video"]


def open_video(path: Path | str, rate: Fraction | int = 25) -> VideoReader:
    """Opens a video file, or a folder of images as a video of `rate` frames a second (a file has its own).

    Raises InputError when the path is missing, empty, no video, cut off before its first frame, or a folder without images.
    """
    path = Path(path)
    return FolderReader(path, Fraction(rate)) if path.is_dir() else FileReader(path)
