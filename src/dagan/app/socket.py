"""The live camera on the page: its pages, and a socket between each page and the driver that draws for it.

A page sends a picture as a time (8 bytes), a number (4 bytes) and a JPEG, and settings as JSON. It is sent back JSON behind its length
(4 bytes), with the number and the time of the picture that it answers, and then a JPEG. Numbers are little-endian. A page sends its
next picture when few of its pictures are unanswered, and of those that come too fast the newest is drawn, so nothing grows old in a queue.
"""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, Response

from dagan.animate.animator import Animator
from dagan.app.live import Answer, Driver, Newest
from dagan.app.uploads import check_photo
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.images import shrunk
from dagan.media.provenance import Provenance, jpeg_with, xmp_packet

STATIC = Path(__file__).parent / "static"
_STAMP = struct.Struct("<dI")
_LENGTH = struct.Struct("<I")
_QUALITY = 88
_LOOK_EVERY = 0.004  # Seconds between two looks for a new picture.
MOST_SIDE = 1920  # Pixels. A larger picture of a camera is refused: the model sees a square of a few hundred.
PORTRAIT_SIDE = 1024  # Pixels. Portraits are kept at this size, which is more than the model takes.
MOST_PORTRAITS = 12


def decode_picture(data: bytes) -> np.ndarray:
    """Returns the picture in a JPEG, WebP or PNG, H x W x 3 uint8. Raises InputError where there is none, or one too large."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "WEBP", "PNG")) as image:
            if max(image.size) > MOST_SIDE or min(image.size) < 16:
                raise InputError(f"the camera's picture has {image.size[0]} x {image.size[1]} pixels: {MOST_SIDE} at most, and 16 at least")
            return np.asarray(image.convert("RGB"))
    except InputError:
        raise
    except Exception:  # Pillow's decoders raise exceptions of many kinds.
        raise InputError("the camera's picture cannot be read: send a JPEG") from None


def encode_picture(picture: np.ndarray) -> bytes:
    """Returns a JPEG of a picture, H x W x 3 uint8."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=_QUALITY)
    return data.getvalue()


def encode_result(picture: np.ndarray, model: str) -> bytes:
    """Returns a JPEG of what a model drew, H x W x 3 uint8. It carries the mark that says so."""
    return jpeg_with(encode_picture(picture), xmp_packet(Provenance(model)))


@dataclass(frozen=True)
class LiveOptions:
    """How a visitor wants the portrait to move."""

    relative: bool = True
    """See `Animator`."""
    limit_motion: bool = True
    """See `Animator`."""
    move: str = "all"
    """See `Animator`."""
    strength: float = 1.0
    """See `Animator`."""


class LatestPicture:
    """The newest JPEG of a live session. Any thread may put one; those who show it wait for the next."""

    def __init__(self) -> None:
        self._now: tuple[int, bytes] = (0, b"")

    def put(self, data: bytes) -> None:
        """Takes a new picture."""
        self._now = (self._now[0] + 1, data)

    async def after(self, number: int) -> tuple[int, bytes]:
        """Returns the number and the bytes of a picture later than the one of this number, when there is one."""
        while self._now[0] <= number:
            await asyncio.sleep(_LOOK_EVERY)
        return self._now


class LiveRooms:
    """The live sessions of a page, each with a key by which its clean picture is found.

    Args:
        engine: It draws for all of them.
        portrait: This is drawn until a visitor chooses another, H x W x 3 uint8.
        most: So many sessions may be open at the same time.
        keyless: This says whether the newest session is shown to those who name none.
        folder: Portraits are written here for as long as they are read.
    """

    def __init__(self, engine: Engine, portrait: np.ndarray, most: int = 4, keyless: bool = True, folder: Path | None = None) -> None:
        self.engine, self.portrait, self.most, self.keyless, self.folder = engine, portrait, most, keyless, folder
        self.open: dict[str, LatestPicture] = {}

    def start(self, key: str | None = None) -> tuple[str, LatestPicture]:
        """Opens a session and returns its key and its picture. Raises InputError when all places are taken."""
        if len(self.open) >= self.most:
            raise InputError(f"all {self.most} live places are taken: try again later")
        name = key or secrets.token_urlsafe(9)
        self.open[name] = LatestPicture()
        return name, self.open[name]

    def end(self, key: str) -> None:
        """Closes a session."""
        self.open.pop(key, None)

    def find(self, key: str | None) -> LatestPicture | None:
        """Returns the picture of the session with this key, or of the newest for None, where that is allowed."""
        if key:
            return self.open.get(key)
        return next(reversed(self.open.values()), None) if self.keyless else None

    def animator(self, portrait: np.ndarray, options: LiveOptions) -> Animator:
        """Returns what draws a portrait. Raises InputError where it shows no face."""
        animator = Animator(self.engine, **asdict(options))
        animator.set_source(portrait, crop=True)
        return animator


class _Visit:
    """One page that is connected."""

    def __init__(self, rooms: LiveRooms, socket: WebSocket, key: str, latest: LatestPicture) -> None:
        self._rooms, self._socket, self._key, self._latest = rooms, socket, key, latest
        self._options = LiveOptions()
        self._portraits = [rooms.portrait]
        self._chosen = 0
        self._loop = asyncio.get_running_loop()
        self._ready: tuple[Answer[tuple[float, int]], bytes] | None = None
        self._news = asyncio.Event()
        self._newest: Newest[tuple[float, int]] | None = None

    async def run(self) -> None:
        """Serves the page until it goes."""
        driver = await asyncio.to_thread(self._driver)
        workers = self._rooms.engine.workers
        self._newest = Newest(driver, workers, decode_picture, self._deliver)
        sender = asyncio.create_task(self._send())
        try:
            await self._tell(ready=True, key=self._key, workers=workers, size=self._rooms.engine.size)
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if (data := message.get("bytes")) is not None:
                    if len(data) > _STAMP.size:
                        time, number = _STAMP.unpack_from(data)
                        self._newest.offer(data[_STAMP.size :], (time, number))
                elif (text := message.get("text")) is not None:
                    await self._obey(text, driver)
        finally:
            sender.cancel()
            await asyncio.to_thread(self._newest.close)

    def _driver(self) -> Driver:
        return Driver(self._rooms.engine, self._rooms.portrait, lambda portrait: self._rooms.animator(portrait, self._options))

    async def _obey(self, text: str, driver: Driver) -> None:
        """Does what the page asks for in JSON, and tells what came of it in one sentence where it cannot be done."""
        try:
            wish = json.loads(text)
            if not isinstance(wish, dict):
                raise ValueError
            if wish.get("recentre"):
                driver.recentre()
            if "portrait" in wish:
                chosen = int(wish["portrait"])
                await asyncio.to_thread(driver.choose, self._portraits[chosen])
                self._chosen = chosen
            if "photo" in wish:
                portrait = await asyncio.to_thread(self._read_portrait, str(wish.get("name", "photo")), str(wish["photo"]))
                await asyncio.to_thread(driver.choose, portrait)
                self._portraits = [*self._portraits[: MOST_PORTRAITS - 1], portrait]
                self._chosen = len(self._portraits) - 1
                await self._tell(portrait=self._chosen)
            if "options" in wish:
                options = LiveOptions(**wish["options"])
                driver.use(await asyncio.to_thread(self._rooms.animator, self._portraits[self._chosen], options))
                self._options = options
        except InputError as error:
            await self._tell(problem=str(error))
        except (ValueError, TypeError, IndexError, AttributeError):
            await self._tell(problem="this wish is not understood: reload the page")

    def _read_portrait(self, name: str, data_url: str) -> np.ndarray:
        """Returns the photo in a data URL, checked as every upload is. It lies in the private folder only while it is read."""
        import base64

        data = base64.b64decode(data_url.partition(",")[2])
        with tempfile.TemporaryDirectory(dir=self._rooms.folder) as folder:
            path = Path(folder) / (Path(name.replace("\\", "/")).name[:80].strip(".") or "photo")
            path.write_bytes(data)
            return shrunk(check_photo(path), PORTRAIT_SIDE)

    def _deliver(self, answer: Answer[tuple[float, int]]) -> None:
        """Takes an answer from the thread that hands over. It waits for the page only as the newest."""
        data = b"" if answer.picture is None else encode_result(answer.picture, self._rooms.engine.name)
        with suppress(RuntimeError):  # The loop may have ended meanwhile.
            self._loop.call_soon_threadsafe(self._put, answer, data)

    def _put(self, answer: Answer[tuple[float, int]], data: bytes) -> None:
        self._ready = (answer, data)
        if data:
            self._latest.put(data)
        self._news.set()

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            assert self._ready is not None
            answer, data = self._ready
            time, number = answer.tag
            problem = None if answer.error is None else _sentence(answer.error)
            facts = {
                "number": number, "time": time, "face": bool(data), "rate": round(answer.rate, 1), "dropped": answer.dropped,
                "seconds": round(answer.seconds, 4), **({"problem": problem} if problem else {}),
            }  # fmt: skip
            head = json.dumps(facts).encode()
            await self._socket.send_bytes(_LENGTH.pack(len(head)) + head + data)

    async def _tell(self, **facts: Any) -> None:
        await self._socket.send_text(json.dumps(facts))


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else "this picture could not be drawn"


def watch_routes(find: Callable[[str | None], LatestPicture | None]) -> APIRouter:
    """Returns the routes of the clean picture: /live/view, /live/files and /live/watch. `find` returns the picture that a key names."""
    router = APIRouter()
    files = {"live.js": "text/javascript", "live.css": "text/css", "view.js": "text/javascript"}

    @router.get("/live/view")
    def view() -> FileResponse:
        return FileResponse(STATIC / "view.html", media_type="text/html")

    @router.get("/live/files/{name}")
    def file(name: str) -> Response:
        return FileResponse(STATIC / name, media_type=files[name]) if name in files else Response(status_code=404)

    @router.websocket("/live/watch")
    async def watch(websocket: WebSocket, key: str | None = Query(default=None)) -> None:
        await websocket.accept()
        gone = asyncio.create_task(_until_gone(websocket))
        number, shown = 0, None
        with suppress(WebSocketDisconnect, RuntimeError):
            while not gone.done():
                latest = find(key)
                if latest is not shown:
                    number, shown = 0, latest
                if latest is None:
                    await asyncio.sleep(0.5)
                    continue
                with suppress(TimeoutError):
                    number, data = await asyncio.wait_for(latest.after(number), 0.5)
                    await websocket.send_bytes(data)
        gone.cancel()

    return router


def live_routes(rooms: LiveRooms) -> APIRouter:
    """Returns the routes of the live camera: /live and its socket, and those of `watch_routes`."""
    router = watch_routes(rooms.find)

    @router.get("/live")
    def page() -> FileResponse:
        return FileResponse(STATIC / "live.html", media_type="text/html")

    @router.get("/live/portrait.jpg")
    def portrait() -> Response:
        return Response(encode_picture(shrunk(rooms.portrait, 256)), media_type="image/jpeg")

    @router.websocket("/live/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            key, latest = rooms.start()
        except InputError as error:
            await websocket.send_text(json.dumps({"problem": str(error)}))
            await websocket.close()
            return
        try:
            await _Visit(rooms, websocket, key, latest).run()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            rooms.end(key)

    return router


async def _until_gone(websocket: WebSocket) -> None:
    with suppress(Exception):
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
