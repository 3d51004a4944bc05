"""A folder of numbered images, or one image, read as a video of constant frame rate.

Moving pictures in and out: `open_video` reads a file or a folder of images, `VideoWriter` writes a file.
"""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

from dagan.errors import InputError
from dagan.media.animations import AnimationReader
from dagan.media.images import image_files, read_image, shrunk
from dagan.media.kinds import IMAGE_SUFFIXES, is_animation, is_photo
from dagan.media.reader import Frame, VideoReader
from dagan.media.video_file import FileReader
from dagan.media.writer import VideoWriter


class FolderReader(VideoReader):
    """The images of a folder in natural order, or one image. Raises InputError when there are none, or when their sizes differ."""

    def __init__(self, folder: Path, rate: Fraction) -> None:
        super().__init__()
        self.path = folder
        self._files = image_files(folder) if folder.is_dir() else [folder]
        if not self._files:
            raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}): give a video file or a folder of images")
        if rate <= 0:
            raise InputError(f"the frame rate {rate} for {folder} must be above 0")
        self.rate = rate
        self.time_base = 1 / rate
        self.frame_count = len(self._files)
        self.duration = self.frame_count / rate
        self.height, self.width = read_image(self._files[0]).shape[:2]

    def _read(self, step: int, max_side: int | None) -> Generator[Frame]:
        self.frames_read = 0
        for index, file in enumerate(self._files):
            self.frames_read = index + 1
            if index % step:
                continue
            image = read_image(file)
            if image.shape[:2] != (self.height, self.width):
                raise InputError(
                    f"{file} is {image.shape[1]} x {image.shape[0]} pixels, the first image of its folder {self.width} x {self.height}: "
                    "give all images of a video the same size"
                )
            yield Frame(shrunk(image, max_side), index / self.rate, index, 1 / self.rate)


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
