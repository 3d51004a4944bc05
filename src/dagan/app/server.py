"""The page's server: one program that serves the page, its calls and the live camera, and nothing beyond this machine unless asked to.

Gradio draws the page. It would report its use and look for newer versions; both are switched off before it is imported.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagan.app.guard import LOCAL_NAMES, Guard, GuardSettings
from dagan.app.studio import Studio
from dagan.app.uploads import LIMITS, PrivateFolder, UploadLimits
from dagan.engine.base import Engine
from dagan.errors import InputError, require_extra
from dagan.examples import PORTRAIT
from dagan.media.images import read_image

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from dagan.app.socket import LatestPicture

FIRST_PORT = 7860
_PORTS_TRIED = 20
_STATIC = Path(__file__).parent / "static"
_LARGEST_MESSAGE = 16 * 2**20  # Bytes of a socket's message; a portrait of 11 MB has so many as text.
# Gradio reads these when it is imported.
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_CHECK_FOR_UPDATES": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """Where the page is served, and to whom."""

    host: str = "127.0.0.1"
    """The address at which it is served. Another than this machine's own needs a password."""
    port: int | None = None
    """The port; None takes the first that is free from 7860 on, and 0 any."""
    password: str | None = None
    """What visitors must know; None asks for nothing."""
    certificate: Path | None = None
    """A file with a certificate for https."""
    key: Path | None = None
    """The certificate's key."""
    hosted: bool = False
    """Whether another program hosts the page, which decides who may see it and shows it in its own pages."""
    most_live: int = 4
    """So many live cameras may be open at the same time."""
    limits: UploadLimits = LIMITS
    """How large uploads may be."""
    guard: GuardSettings = field(default_factory=GuardSettings)
    """How slow and how large requests may be. Its password and names are those that follow from the other settings."""

    @property
    def local(self) -> bool:
        """Whether the page answers this machine alone."""
        return self.host in LOCAL_NAMES


def check_settings(settings: PageSettings) -> None:
    """Raises InputError for settings that cannot work or would let in everybody."""
    if not settings.local and not settings.hosted and not settings.password:
        raise InputError(f"a page at {settings.host} can be opened by others: it needs a password")
    if (settings.certificate is None) != (settings.key is None):
        raise InputError("https needs a certificate and its key: give both files")
    if settings.certificate is not None and settings.key is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{settings.certificate} and {settings.key} are no certificate with its key ({error})") from None


def make_page(engine: Engine, settings: PageSettings, folder: PrivateFolder) -> Guard:
    """Returns the whole page as an ASGI application. Its files lie in `folder`.

    A process serves one such page at a time, because Gradio knows one folder of uploads.
    """
    require_extra("app", "the page")
    os.environ.update(_QUIET)
    os.environ["GRADIO_TEMP_DIR"] = str(folder.path)
    import gradio as gr

    from dagan.app.page import build_page
    from dagan.app.socket import LiveRooms, live_routes

    studio = Studio(engine, folder, settings.limits)
    rooms = LiveRooms(engine, read_image(PORTRAIT), settings.most_live, keyless=settings.local, folder=folder.path)
    app = _empty()
    app.include_router(live_routes(rooms))
    blocks = build_page(studio)
    gr.mount_gradio_app(
        app, blocks, path="/", server_name=settings.host, footer_links=["api", "settings"], run_history=False, show_error=True,
        max_file_size=max(settings.limits.photo_bytes, settings.limits.video_bytes), ssr_mode=False, enable_monitoring=False, pwa=False,
        mcp_server=False, theme=_theme(), css_paths=[_STATIC / "page.css"], allowed_paths=[], blocked_paths=[],
    )  # fmt: skip
    folder.keep_present()
    return _guard(app, settings, folder)


def make_watch_page(latest: LatestPicture, settings: PageSettings) -> Guard:
    """Returns the clean page of one live picture alone as an ASGI application."""
    from dagan.app.socket import watch_routes

    app = _empty()
    app.include_router(watch_routes(lambda key: latest))
    return _guard(app, settings, None)


def _empty() -> FastAPI:
    from fastapi import FastAPI

    return FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


def _guard(app: FastAPI, settings: PageSettings, folder: PrivateFolder | None) -> Guard:
    names = LOCAL_NAMES if settings.local and not settings.hosted else None
    room_for = settings.guard.room_for if folder is None else folder.room_for
    return Guard(app, replace(settings.guard, password=settings.password, names=names, framed=settings.hosted, room_for=room_for))


def _theme() -> Any:
    import gradio as gr

    # Fonts are the system's own, where the theme's would be fetched from elsewhere.
    return gr.themes.Default(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def bound_socket(settings: PageSettings) -> socket.socket:
    """Returns a socket at the address and port. Raises InputError where the port is taken, or the address is none of this machine's."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    ports = range(FIRST_PORT, FIRST_PORT + _PORTS_TRIED) if settings.port is None else (settings.port,)
    problem: OSError | None = None
    for port in ports:
        opened = socket.socket(family, socket.SOCK_STREAM)
        if os.name != "nt":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((settings.host, port))
        except OSError as error:
            opened.close()
            problem = error
            continue
        return opened
    wanted = f"port {settings.port}" if settings.port is not None else f"each port from {ports[0]} to {ports[-1]}"
    raise InputError(f"{wanted} of {settings.host} cannot be used ({problem and problem.strerror}): give another with --port")


class PageServer:
    """A server for a page. `run` serves in this thread until it is interrupted, and the context manager serves in another."""

    def __init__(self, app: Guard, settings: PageSettings) -> None:
        import uvicorn

        self._socket = bound_socket(settings)
        self.port: int = self._socket.getsockname()[1]
        scheme = "http" if settings.certificate is None else "https"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.address = f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.port}/"
        # Logging is the process's own matter: uvicorn's configuration would close handlers of other libraries, with their streams.
        config = uvicorn.Config(
            app, log_config=None, log_level="error", access_log=False, ws_max_size=_LARGEST_MESSAGE, ws_max_queue=4, timeout_keep_alive=20,
            timeout_graceful_shutdown=3, limit_concurrency=400, server_header=False, ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key, ws_per_message_deflate=False,
        )  # fmt: skip
        self._server: uvicorn.Server = uvicorn.Server(config)

    def run(self) -> None:
        """Serves until Ctrl-C."""
        with closing(self._socket):
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Ends `run`, from any thread."""
        self._server.should_exit = True

    @contextmanager
    def serving(self) -> Iterator[PageServer]:
        """Serves in a thread of its own for as long as the block lasts."""
        thread = threading.Thread(target=self.run, name="dagan-page", daemon=True)
        thread.start()
        while not self._server.started and thread.is_alive():
            time.sleep(0.02)
        try:
            yield self
        finally:
            self.stop()
            thread.join(timeout=10)


def serve(
    open_engine: Callable[[], Engine], settings: PageSettings, browser: bool = False, say: Callable[[str], None] = print
) -> None:  # fmt: skip
    """Serves the page until it is interrupted. Raises InputError for settings that cannot work.

    Args:
        open_engine: This opens the engine, once everything that can be refused has been.
        browser: This says whether the page is opened in the user's browser.
        say: This is told where the page is.
    """
    require_extra("app", "the page")
    check_settings(settings)
    with _ended_gently(), PrivateFolder() as folder, closing(bound_socket(settings)) as probe:
        settings = replace(settings, port=probe.getsockname()[1])  # A port that is taken is said before the model is loaded.
        app = make_page(open_engine(), settings, folder)
        probe.close()
        server = PageServer(app, settings)
        say(f"the page is at {server.address}: Ctrl-C ends it")
        if browser:
            threading.Timer(1.0, webbrowser.open, (server.address,)).start()
        with suppress(KeyboardInterrupt):  # Ctrl-C is how a page ends.
            server.run()


@contextmanager
def _ended_gently() -> Iterator[None]:
    """Makes the end of this process that a system asks for as gentle as Ctrl-C, so that the private folder is removed."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
