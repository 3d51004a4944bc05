"""Stands before everything that the page serves, and refuses what nobody needs: each refusal is one sentence.

Somebody with a password signs in once. Requests must be meant for this address, and come from no other site's pages. A body may take so
many bytes and so much time. What is sent tells the browser to ask nothing of any other host.
"""

from __future__ import annotations

import asyncio
import hmac
import html
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

COOKIE = "access-token-dagan"  # gradio_client keeps cookies whose names begin like this.
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_CONTENT = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:{sockets}; frame-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>dagan: sign in</title><style>:root{{color-scheme:light dark}}body{{font:1rem system-ui;display:grid;place-content:center;
min-height:90vh}}form{{display:grid;gap:.7rem}}input,button{{font:inherit;padding:.5rem}}</style>
<form method="post" action="login"><h1>dagan</h1><p role="alert">{problem}</p><label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>
<input name="username" type="hidden" value="dagan"><button>Sign in</button></form></html>"""

_WELCOME = """<!doctype html><html lang="en"><meta http-equiv="refresh" content="0;url=./"><title>dagan</title>
<p>You are signed in. <a href="./">Go on.</a></p></html>"""


@dataclass(frozen=True)
class GuardSettings:
    """What the guard lets through."""

    password: str | None = None
    """Visitors must know this; None asks for nothing."""
    names: tuple[str, ...] | None = LOCAL_NAMES
    """Requests must be meant for one of these hosts; None allows every name."""
    framed: bool = False
    """Whether pages of other sites may show this one in a frame, as hosts of such pages do."""
    body_bytes: int = 201 * 2**20
    """The largest body of a request, in bytes."""
    grace_seconds: float = 20.0
    """A body may be slow for so many seconds."""
    slowest: float = 8192
    """Bytes a second that must come on average after that."""
    idle_seconds: float = 20.0
    """Seconds that may pass between two pieces of a body."""
    room_for: Callable[[int], bool] = lambda _: True
    """Says whether so many bytes more have room on the disk."""


class _Refused(Exception):
    """Ends a request that is not served to its end."""


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: Any, settings: GuardSettings) -> None:
        self._app, self._settings = app, settings
        self._tokens: set[str] = set()
        self._signing = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(headers)
        if refusal is not None:
            await _answer(scope, send, 403, refusal)
        elif self._settings.password is not None and scope.get("path") == "/login" and scope["type"] == "http":
            await self._sign_in(scope, receive, send, headers)
        elif not self._signed_in(headers):
            page = "text/html" in headers.get("accept", "") and scope.get("method") == "GET"
            if page:
                await _answer(scope, send, 401, _LOGIN.format(problem=""), "text/html; charset=utf-8")
            else:
                await _answer(scope, send, 401, "this page needs its password: sign in first")
        elif scope["type"] == "http":
            await self._serve(scope, receive, send, headers)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: dict[str, str]) -> str | None:
        """Returns why a request is not meant for this page, or None where it is."""
        host = headers.get("host", "")
        names = self._settings.names
        if names is not None and _name_of(host) not in names:
            return "this page answers at its own address alone: open it by the address that it printed"
        origin = headers.get("origin")
        if origin in (None, "") or self._settings.framed:
            return None
        return None if urlsplit(str(origin)).netloc == host else "pages of other sites may not use this one"

    def _signed_in(self, headers: dict[str, str]) -> bool:
        if self._settings.password is None:
            return True
        cookie = SimpleCookie(headers.get("cookie", ""))
        return COOKIE in cookie and cookie[COOKIE].value in self._tokens

    async def _sign_in(self, scope: Any, receive: Any, send: Any, headers: dict[str, str]) -> None:
        if scope["method"] == "GET":
            await _answer(scope, send, 200, _LOGIN.format(problem=""), "text/html; charset=utf-8")
            return
        body = b""
        while len(body) < 4096:
            message = await asyncio.wait_for(receive(), self._settings.idle_seconds)
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        given = parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]
        async with self._signing:  # Guesses are answered one by one, with a pause, whoever makes them.
            right = hmac.compare_digest(given.encode(), str(self._settings.password).encode())
            if not right:
                await asyncio.sleep(1)
        if not right:
            await _answer(scope, send, 401, _LOGIN.format(problem=html.escape("This is not the password.")), "text/html; charset=utf-8")
            return
        token = secrets.token_urlsafe(32)
        self._tokens.add(token)
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/{secure}"
        # Programs that sign in take an answer of success for one, and browsers go on from there by themselves.
        await _answer(scope, send, 200, _WELCOME, "text/html; charset=utf-8", [(b"set-cookie", cookie.encode())])

    async def _serve(self, scope: Any, receive: Any, send: Any, headers: dict[str, str]) -> None:
        settings = self._settings
        declared = int(headers["content-length"]) if headers.get("content-length", "").isdigit() else 0
        if declared > settings.body_bytes:
            await _answer(scope, send, 413, f"a request may have {settings.body_bytes // 2**20} MB: choose a smaller file")
            return
        if declared and not settings.room_for(declared):
            await _answer(scope, send, 507, "too many files wait on this page: try again in some minutes")
            return
        refusal: tuple[int, str] | None = None
        started = False
        began, seen, complete = time.monotonic(), 0, False

        async def receiving() -> Any:
            nonlocal seen, complete, refusal
            if complete:  # What comes after the body only tells that the visitor has gone, and that may take its time.
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), settings.idle_seconds)
            except TimeoutError:
                refusal = (408, "the upload stopped: try again")
                raise _Refused from None
            seen += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            spent = time.monotonic() - began
            if seen > settings.body_bytes:
                refusal = (413, f"a request may have {settings.body_bytes // 2**20} MB: choose a smaller file")
            elif not complete and spent > settings.grace_seconds and seen < settings.slowest * spent:
                refusal = (408, "the upload is too slow: try again with a smaller file or a better connection")
            if refusal is not None:
                raise _Refused
            return message

        async def sending(message: Any) -> None:
            nonlocal started
            if refusal is not None and not started:
                return
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *self._safe_headers(headers)]}
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Exception:
            if refusal is None:
                raise
        if refusal is not None and not started:
            await _answer(scope, send, *refusal, more=[(b"connection", b"close")])

    def _safe_headers(self, headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
        host = headers.get("host", "")
        sockets = f" ws://{host} wss://{host}" if host and not set(host) & set(" ;,'\"") else ""
        ancestors = "" if self._settings.framed else "; frame-ancestors 'self'"
        return [
            (b"content-security-policy", (_CONTENT.format(sockets=sockets) + ancestors).encode("latin-1")),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]


def _name_of(host: str) -> str:
    """Returns the host's name without its port."""
    return (urlsplit(f"//{host}").hostname or "").lower()


async def _answer(
    scope: Any, send: Any, status: int, text: str, kind: str = "text/plain; charset=utf-8", more: list[tuple[bytes, bytes]] | None = None
) -> None:  # fmt: skip
    """Sends a whole answer, or closes a socket that was never opened."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text[:120]})
        return
    body = text.encode("utf-8")
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
