"""Pictures of a camera, as they come: a camera of this machine, through FFmpeg's devices, or a video file in a camera's place.

A camera is never waited for with old pictures: whoever takes them gets the newest. A file is shown at its own pace, as a camera would
show it, and ends.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dagan.errors import InputError
from dagan.media.reader import VideoReader
from dagan.media.video import open_video

if TYPE_CHECKING:
    from av.container import InputContainer

# FFmpeg's name for the cameras of a platform, and how it names the camera of a number there; on Windows cameras have names alone.
_DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}:none"), "win32": ("dshow", None)}


def camera_pictures(camera: str, width: int = 640, height: int = 480) -> Generator[np.ndarray]:
    """Opens a camera and yields its pictures, H x W x 3 uint8, as they come, until it ends.

    `camera` is a number, counted from 0, a device's name, or a video file. `width` and `height` are asked of a camera, which may choose
    others. Raises InputError, before the first picture is asked for, when there is no such camera or file, or when it cannot be opened.
    """
    path = Path(camera)
    return _paced(open_video(path)) if path.exists() and not path.is_char_device() else _decoded(_open(camera, width, height))


def _paced(reader: VideoReader) -> Generator[np.ndarray]:
    began = time.monotonic()
    with reader:
        for frame in reader:
            time.sleep(max(0.0, float(frame.time) - (time.monotonic() - began)))
            yield frame.image


def _open(camera: str, width: int, height: int) -> InputContainer:
    import av

    if sys.platform not in _DEVICES:
        raise InputError(f"cameras are not read on {sys.platform}: give a video file with --camera")
    kind, numbered = _DEVICES[sys.platform]
    name = camera
    if re.fullmatch(r"\d+", camera):
        if numbered is None:
            raise InputError(f"camera {camera}: on Windows give the camera's own name, such as --camera 'Integrated Camera'")
        name = numbered.format(camera)
    elif kind == "dshow":
        name = f"video={camera}"
    problem: Exception | None = None
    # Some cameras have no pictures of that size, or of that rate.
    for options in ({"framerate": "30", "video_size": f"{width}x{height}"}, {"framerate": "30"}, {}):
        try:
            return av.open(name, format=kind, options=options)
        except (av.FFmpegError, ValueError, OSError) as error:
            problem = error
    reason = getattr(problem, "strerror", None) or type(problem).__name__
    raise InputError(f"camera {camera} cannot be opened ({reason}): give another with --camera, or a video file")


def _decoded(container: InputContainer) -> Generator[np.ndarray]:
    import av

    with closing(container), suppress(av.EOFError):
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
