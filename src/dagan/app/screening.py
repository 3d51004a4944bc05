"""A camera of this machine drives a portrait, without a page of its own: on screen, or as a camera that other programs can choose.

The picture on screen is the clean page of the live camera, which any browser shows, and programs such as OBS.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from dagan.animate.animator import Animator
from dagan.app.live import Answer, Driver, Newest
from dagan.engine.base import Engine
from dagan.errors import InputError, require_extra

Show = Callable[[np.ndarray], None]


@dataclass(frozen=True)
class LiveReport:
    """What a live run did."""

    pictures: int
    """How many pictures of the camera were answered."""
    without_face: int
    """How many of them showed no face."""
    dropped: int
    """How many were left out, because a newer one was there."""
    rate: float
    """How many were answered a second, from the first to the last."""
    latency: float
    """The median of the seconds from the camera's picture to the portrait's."""


class _Tally:
    """Counts answers, and shows their pictures. The last one with a face stays where there is none."""

    def __init__(self, show: Show, mirror: bool) -> None:
        self._show, self._mirror = show, mirror
        self.seconds: list[float] = []
        self.without_face = self.dropped = 0
        self.error: Exception | None = None

    def __call__(self, answer: Answer[None]) -> None:
        self.seconds.append(answer.seconds)
        self.dropped = answer.dropped
        if answer.error is not None:
            self.error = self.error or answer.error
        elif answer.picture is None:
            self.without_face += 1
        else:
            try:
                self._show(np.ascontiguousarray(answer.picture[:, ::-1]) if self._mirror else answer.picture)
            except Exception as error:  # What shows may be gone. The run then ends with what it says.
                self.error = self.error or error


def run_live(
    engine: Engine, portrait: np.ndarray, animate: Callable[[np.ndarray], Animator], pictures: Iterable[np.ndarray], show: Show,
    mirror: bool = False,
) -> LiveReport:  # fmt: skip
    """Drives the portrait with pictures of a camera, as they come, until they end or Ctrl-C. Each result is shown.

    Raises InputError where the portrait shows no face, and whatever goes wrong while drawing or showing.
    """
    tally = _Tally(show, mirror)
    newest: Newest[None] = Newest(Driver(engine, portrait, animate), engine.workers, None, tally)
    began = time.monotonic()
    try:
        for picture in pictures:
            newest.offer(picture, None)
            if tally.error is not None:
                break
        newest.drain()
    except KeyboardInterrupt:  # This is how a camera ends.
        pass
    finally:
        newest.close()
    if tally.error is not None:
        raise tally.error
    spent = time.monotonic() - began
    median = statistics.median(tally.seconds) if tally.seconds else 0.0
    return LiveReport(len(tally.seconds), tally.without_face, newest.dropped, len(tally.seconds) / max(spent, 1e-9), median)


@contextmanager
def virtual_camera(size: int, device: str | None = None, rate: float = 25) -> Iterator[tuple[Show, str]]:
    """Yields what shows pictures, size x size x 3 uint8, as a camera of this machine, and the camera's name.

    Raises InputError when there is no virtual camera.
    """
    import pyvirtualcam

    try:
        camera = pyvirtualcam.Camera(width=size, height=size, fps=rate, device=device)
    except (RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"there is no virtual camera ({reason}): install OBS, on Linux the module v4l2loopback, or use --to screen"
        ) from None
    with camera:
        yield camera.send, str(camera.device)


@contextmanager
def screen(model: str, port: int | None = None, page: Callable[[str], None] | None = None) -> Iterator[tuple[Show, str]]:
    """Yields what shows pictures that a model drew on the clean page, and the page's address; `page` is called with it when it is served.

    Raises InputError for a port that cannot be used.
    """
    from dagan.app.server import PageServer, PageSettings, make_watch_page
    from dagan.app.socket import LatestPicture, encode_result

    latest = LatestPicture()
    settings = PageSettings(port=port)
    server = PageServer(make_watch_page(latest, settings), settings)
    with server.serving():
        address = f"{server.address}live/view"
        if page is not None:
            page(address)
        yield lambda picture: latest.put(encode_result(picture, model)), address


def check_shown(to: str) -> None:
    """Raises InputError where the word says no place to show pictures at, or an extra for it is not installed."""
    if to not in ("screen", "virtual-camera", "nothing"):
        raise InputError(f"--to is {to!r}: must be screen, virtual-camera or nothing")
    if to != "nothing":
        require_extra(*(("app", "showing the live picture") if to == "screen" else ("live", "a virtual camera")))


def shown_to(
    to: str, engine: Engine, port: int | None, device: str | None, page: Callable[[str], None]
) -> AbstractContextManager[tuple[Show, str]]:  # fmt: skip
    """Returns what shows an engine's pictures: screen, virtual-camera, or nothing."""
    if to == "screen":
        return screen(engine.name, port, page)
    return virtual_camera(engine.size, device) if to == "virtual-camera" else nullcontext((lambda picture: None, to))
