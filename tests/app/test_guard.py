"""What the page refuses before it looks at it: paths, too much, too slow, from elsewhere, and without the password."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from dataclasses import replace

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dagan.app.guard import Guard, GuardSettings
from dagan.app.server import PageSettings, bound_socket, check_settings
from dagan.errors import InputError


def ask(port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace"), {key.lower(): value for key, value in answer.getheaders()}
    finally:
        connection.close()


FORM = "multipart/form-data; boundary=x"


PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


def beginning(length: str) -> bytes:
    return f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {FORM}\r\n{length}\r\n\r\n".encode()


def form(data: bytes, name: str = "a.png") -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="files"; filename="' + name.encode() + b'"\r\n\r\n' + data + b"\r\n--x--\r\n"


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=/etc/passwd", "/gradio_api/file=../../../../etc/passwd", "/live/files/..%2f..%2fserver.py", "/live/files/live.html",
     "/gradio_api/file=http://127.0.0.1/", "/static/../server.py", "/gradio_api/proxy=http://127.0.0.1/"],
)  # fmt: skip
def test_a_path_in_a_request_is_refused(page, path):
    status, text, _ = ask(page.port, path)
    assert status in (400, 403, 404)
    assert "root:" not in text
    assert "import" not in text


@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1:1/x.png", "FOLDER/../../etc/passwd"])
def test_a_path_in_place_of_an_upload_is_refused(page, path):
    given = {"path": path.replace("FOLDER", str(page.folder.path)), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [given]}).encode()
    status, text, _ = ask(page.port, "/gradio_api/call/depth", "POST", body, Content_Type="application/json")
    if status == 200:
        _, text, _ = ask(page.port, f"/gradio_api/call/depth/{json.loads(text)['event_id']}")
        assert "event: error" in text
    assert "root:" not in text


def test_a_name_with_a_path_stays_in_the_folder(page):
    status, text, _ = ask(page.port, "/gradio_api/upload", "POST", form(b"hello", "../../../evil.png"), Content_Type=FORM)
    assert status == 200
    page.folder.inside(json.loads(text)[0])


def test_too_large_a_body_is_refused_before_it_is_read(page):
    before = page.folder.visitors_files()
    status, text, _ = ask(page.port, "/gradio_api/upload", "POST", Content_Length=str(2**33), Content_Type=FORM)
    assert (status, "MB" in text) == (413, True)
    assert page.folder.visitors_files() == before


def test_too_large_a_body_without_a_length_is_refused_while_it_comes(page):
    connection = socket.create_connection(("127.0.0.1", page.port), timeout=20)
    connection.sendall(beginning("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n" % (len(PART), PART))
    piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    try:
        for _ in range(150):
            connection.sendall(piece)
    except OSError:
        pass  # The page has hung up.
    assert b"413" in connection.recv(100)


@pytest.mark.parametrize("pause", [0.05, 3.0])
def test_a_slow_upload_is_refused(page, pause):
    connection = socket.create_connection(("127.0.0.1", page.port), timeout=20)
    connection.sendall(beginning("Content-Length: 100000") + PART)
    answer: list[bytes] = []
    reading = threading.Thread(target=lambda: answer.append(connection.recv(1000)))
    reading.start()
    began = time.monotonic()
    while reading.is_alive() and time.monotonic() - began < 10:
        try:
            connection.sendall(b"x")
        except OSError:
            break
        reading.join(pause)
    assert b"408" in answer[0]
    assert time.monotonic() - began < 6


def test_other_hosts_and_other_sites_are_refused(page):
    assert ask(page.port, "/", Host="evil.example")[0] == 403
    assert ask(page.port, "/", Host=f"localhost:{page.port}")[0] == 200
    assert ask(page.port, "/gradio_api/upload", "POST", form(b"a"), Content_Type=FORM, Origin="http://evil.example")[0] == 403
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{page.port}/live/socket", origin="http://evil.example")


def test_everything_says_that_nothing_comes_from_elsewhere(page):
    for path in ("/", "/live", "/live/view"):
        _, text, headers = ask(page.port, path)
        assert "default-src 'self'" in headers["content-security-policy"], path
        assert "fonts.googleapis" not in text


def test_a_password_is_asked_for_everywhere(serve):
    served = serve(password="öffne dich")
    for path in ("/", "/gradio_api/info", "/live", "/live/portrait.jpg", "/config"):
        assert ask(served.port, path)[0] == 401
    assert 'type="password"' in ask(served.port, "/", Accept="text/html")[1]
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{served.port}/live/socket")
    wrong = ask(served.port, "/login", "POST", b"username=dagan&password=no", Content_Type="application/x-www-form-urlencoded")
    assert (wrong[0], "set-cookie" in wrong[2]) == (401, False)
    form_type = "application/x-www-form-urlencoded"
    right = ask(served.port, "/login", "POST", b"username=dagan&password=%C3%B6ffne+dich", Content_Type=form_type)
    cookie = right[2]["set-cookie"]
    assert right[0] == 200
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert ask(served.port, "/config", Cookie=cookie.partition(";")[0])[0] == 200
    assert ask(served.port, "/config", Cookie="access-token-dagan=x")[0] == 401


def test_nobody_shares_without_a_password():
    check_settings(PageSettings())
    check_settings(PageSettings(host="0.0.0.0", password="x"))
    check_settings(PageSettings(host="0.0.0.0", hosted=True))
    with pytest.raises(InputError, match="needs a password"):
        check_settings(PageSettings(host="0.0.0.0"))


def test_a_port_that_is_taken_is_said(tmp_path):
    with bound_socket(PageSettings(port=0)) as taken:
        taken.listen()
        with pytest.raises(InputError, match=f"port {taken.getsockname()[1]} of 127.0.0.1 cannot be used"):
            bound_socket(PageSettings(port=taken.getsockname()[1]))
    with pytest.raises(InputError, match="certificate"):
        check_settings(PageSettings(certificate=tmp_path / "a.pem", key=tmp_path / "b.pem"))


def test_a_full_disk_quota_is_said(page):
    guard = Guard(None, replace(GuardSettings(), room_for=lambda more: False))
    sent = []

    async def send(message):
        sent.append(message)

    import asyncio

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost"), (b"content-length", b"5")]}
    asyncio.run(guard(scope, None, send))
    assert sent[0]["status"] == 507
