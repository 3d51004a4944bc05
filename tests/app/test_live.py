"""The live camera without a browser: the square, the newest picture, the socket, a camera's file, and the virtual camera."""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import pyvirtualcam.camera
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from app_conditions import until
from dagan import examples
from dagan.animate.animator import Animator
from dagan.app.live import Driver, Look, Newest, SteadySquare
from dagan.app.screening import run_live
from dagan.media.images import read_image
from dagan.media.landmarks import FaceLandmarker
from dagan.media.provenance import find_xmp
from dagan.media.video import camera_pictures
from running_samples import moving_pictures, save_tiny_model, write_clip

PORTRAIT = read_image(examples.PORTRAIT)
FACE = FaceLandmarker().detect(PORTRAIT)[0]


def moved(x: float, y: float = 0, scale: float = 1) -> object:
    landmarks = FACE.landmarks * np.float32(scale) + np.array([x, y, 0], np.float32)
    return replace(FACE, landmarks=landmarks)


def camera_picture(x: int = 40, face: bool = True) -> np.ndarray:
    """640 x 480 pixels, with the bundled portrait's head in it."""
    picture = Image.new("RGB", (640, 480), (120, 130, 140))
    if face:
        picture.paste(Image.fromarray(PORTRAIT).crop((130, 0, 330, 200)).resize((400, 400)), (x, 40))
    return np.asarray(picture)


def animate(engine):
    def make(portrait):
        animator = Animator(engine)
        animator.set_source(portrait, crop=True)
        return animator

    return make


def test_the_square_stands_still_while_the_face_stays_near_its_middle():
    square = SteadySquare()
    first = square.place(moved(0), 512, 512, 0.0)
    for i in range(20):
        assert square.place(moved(0.05 * first.side * np.sin(i)), 512, 512, 0.04 * i) == first


def test_the_square_follows_without_jumps_and_stops():
    square = SteadySquare()
    places = [square.place(moved(0), 900, 512, 0.0)]
    places += [square.place(moved(200), 900, 512, 0.04 * i) for i in range(1, 80)]
    steps = np.diff([place.center_x for place in places])
    assert (steps >= 0).all()
    assert steps.max() < 0.12 * places[0].side
    assert 150 < places[-1].center_x - places[0].center_x < 200
    assert steps[-1] < 0.5


def test_a_face_that_comes_back_is_framed_at_once():
    square = SteadySquare()
    square.place(moved(0), 900, 512, 0.0)
    assert square.place(moved(300), 900, 512, 5.0).center_x == SteadySquare().place(moved(300), 900, 512, 5.0).center_x


def test_a_face_is_lost_and_found_again(engine):
    driver = Driver(engine, PORTRAIT, animate(engine))
    seen = [driver.draw(driver.see(camera_picture(40, face), now=0.1 * i)) is not None for i, face in enumerate((1, 1, 0, 0, 1))]
    assert seen == [True, True, False, False, True]


def test_re_centring_brings_the_portrait_to_rest(engine):
    """The picture that stands for the portrait's pose gives the portrait at rest, wherever the face is."""
    driver = Driver(engine, PORTRAIT, animate(engine))
    animator = animate(engine)(PORTRAIT)
    rest = animator.engine.render(animator._source, animator._source.keypoints)[0].astype(float)
    driver.draw(driver.see(camera_picture(40), now=0.0))
    away = driver.draw(driver.see(camera_picture(90), now=0.1)).astype(float)
    driver.recentre()
    centred = driver.draw(driver.see(camera_picture(90), now=0.2)).astype(float)
    assert np.abs(centred - rest).mean() < 1
    assert np.abs(centred - rest).mean() < np.abs(away - rest).mean()


class Slow(Driver):
    """Draws a number's picture, slowly."""

    def __init__(self) -> None:
        pass

    def see(self, picture, now=None):
        return Look(picture, None, None, False)

    def draw(self, look):
        time.sleep(0.03)
        return look.view


@pytest.mark.parametrize("workers", [1, 2])
def test_late_pictures_are_dropped_and_answers_come_in_order(workers):
    answers = []
    newest = Newest(Slow(), workers, None, answers.append)
    for i in range(60):
        newest.offer(np.full((2, 2, 3), i, np.uint8), i)
        time.sleep(0.005)
    newest.drain()
    newest.close()
    tags = [answer.tag for answer in answers]
    assert tags == sorted(tags)
    assert tags[-1] == 59  # The last picture is never dropped.
    assert len(tags) + newest.dropped == 60
    assert newest.dropped > 10
    assert all(answer.picture[0, 0, 0] == answer.tag for answer in answers)
    assert max(answer.seconds for answer in answers[2:]) < 0.2  # Nothing grows old.


def test_the_next_picture_is_looked_at_while_one_is_drawn():
    ended, seen = threading.Event(), threading.Event()

    class Waiting(Slow):
        def see(self, picture, now=None):
            if picture[0, 0, 0] == 1:
                seen.set()
            return super().see(picture)

        def draw(self, look):
            assert ended.wait(10)
            return look.view

    newest = Newest(Waiting(), 1, None, lambda answer: None)
    try:
        newest.offer(np.zeros((2, 2, 3), np.uint8), 0)
        until(lambda: newest._slot is None, 10)
        newest.offer(np.ones((2, 2, 3), np.uint8), 1)
        assert seen.wait(5), "it is seen before the first one is drawn"
    finally:
        ended.set()
        newest.close()


def jpeg(picture: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG")
    return data.getvalue()


def send(socket: ClientConnection, number: int, data: bytes) -> tuple[dict, bytes]:
    socket.send(struct.pack("<dI", 12.5, number) + data)
    while True:
        answer = socket.recv(10)
        if isinstance(answer, bytes):
            return parted(answer)


def parted(answer: bytes) -> tuple[dict, bytes]:
    length = struct.unpack_from("<I", answer)[0]
    return json.loads(answer[4 : 4 + length]), answer[4 + length :]


def told(socket: ClientConnection, wish: dict) -> dict:
    socket.send(json.dumps(wish))
    return json.loads(socket.recv(10))


def test_a_socket_answers_pictures_and_the_clean_page_shows_them(page, tmp_path):
    with connect(f"ws://127.0.0.1:{page.port}/live/socket") as socket:
        ready = json.loads(socket.recv(10))
        assert ready["ready"]
        with connect(f"ws://127.0.0.1:{page.port}/live/watch?key={ready['key']}") as watching:
            facts, picture = send(socket, 1, jpeg(camera_picture()))
            assert (facts["number"], facts["time"], facts["face"]) == (1, 12.5, True)
            assert Image.open(io.BytesIO(picture)).size == (64, 64)
            (tmp_path / "answer.jpg").write_bytes(picture)
            assert [mark.synthetic for mark in find_xmp(tmp_path / "answer.jpg")[1]] == [True], "what a model drew says so"
            assert watching.recv(10) == picture
        facts, picture = send(socket, 2, jpeg(camera_picture(face=False)))
        assert (facts["face"], picture) == (False, b"")
        facts, _ = send(socket, 3, b"no picture")
        assert facts["problem"] == "the camera's picture cannot be read: send a JPEG"
        facts, _ = send(socket, 4, jpeg(np.zeros((2000, 16, 3), np.uint8)))
        assert "1920 at most" in facts["problem"]
        assert send(socket, 5, jpeg(camera_picture()))[0]["face"]  # It goes on after all that.


def test_a_portrait_is_read_as_every_upload_is(page):
    url = "data:image/png;base64,"
    with connect(f"ws://127.0.0.1:{page.port}/live/socket") as socket:
        socket.recv(10)
        good = base64.b64encode(examples.PORTRAIT.read_bytes()).decode()
        assert told(socket, {"photo": url + good, "name": "../me.png"}) == {"portrait": 1}
        bad = told(socket, {"photo": url + base64.b64encode(b"no picture").decode(), "name": "../../bad.png"})
        assert bad["problem"].startswith("bad.png is not an image")
        nobody = told(socket, {"photo": url + base64.b64encode(jpeg(moving_pictures(1, 200, 200)[0])).decode(), "name": "waves.jpg"})
        assert nobody["problem"].startswith("no face found")
        for wish in ({"portrait": 99}, {"options": {"x": 1}}, {"options": 3}, [1], {"portrait": "a"}):
            assert "not understood" in told(socket, wish)["problem"]
        socket.send(json.dumps({"options": {"relative": True}}))  # They are for the portrait chosen last that there is.
        assert "move" in told(socket, {"options": {"move": "ears"}})["problem"]
        assert told(socket, {"photo": url + good, "name": "me.png"}) == {"portrait": 2}, "wishes that failed have left nothing behind"
        socket.send(json.dumps({"portrait": 1, "options": {"relative": False}}))
        socket.send(struct.pack("<dI", 12.5, 1) + jpeg(camera_picture()))
        answer = socket.recv(10)
        assert isinstance(answer, bytes), "these wishes are fulfilled, without a problem"
        assert parted(answer)[0]["face"]
    assert not {"me.png", "bad.png", "waves.jpg"} & {path.name for path in page.folder.files()}


def test_live_places_are_counted_and_freed(serve):
    served = serve(most_live=1)
    address = f"ws://127.0.0.1:{served.port}/live/socket"
    with connect(address) as first:
        first.recv(10)
        with connect(address) as second:
            assert "all 1 live places are taken" in json.loads(second.recv(10))["problem"]

    def free() -> bool:
        with connect(address) as third:
            return "ready" in json.loads(third.recv(10))

    until(free, 10)


def test_a_file_stands_in_for_a_camera_at_its_own_pace(engine, tmp_path):
    clip = write_clip(tmp_path / "camera.mp4", [camera_picture(40 + 4 * i) for i in range(10)])
    began, shown = time.monotonic(), []
    report = run_live(engine, PORTRAIT, animate(engine), camera_pictures(str(clip)), shown.append, mirror=True)
    assert time.monotonic() - began >= 9 / 25
    assert report.pictures + report.dropped == 10
    assert report.without_face == 0
    assert len(shown) == report.pictures
    assert all(picture.shape == (64, 64, 3) for picture in shown)


def test_dagan_live_shows_on_the_clean_page(tmp_path, command, samples):
    clip = write_clip(tmp_path / "camera.mp4", [camera_picture(40 + 2 * i) for i in range(12)])
    model = save_tiny_model(tmp_path / "tiny.safetensors")
    code, printed, said = command("live", "--camera", clip, "--model", model, "--device", "cpu", "--port", "0", "--no-browser")
    assert code == 0, said
    assert "/live/view" in said
    assert "from camera to portrait" in printed


class FakeCamera:
    """What pyvirtualcam asks of a backend."""

    sent: ClassVar[list[np.ndarray]] = []

    def __init__(self, *, device=None, **more):
        self.name = device or "pretended"
        if device == "gone":
            raise RuntimeError("no such device")

    def close(self):
        pass

    def device(self):
        return self.name

    def native_fourcc(self):
        return None

    def send(self, frame):
        self.sent.append(np.array(frame))


def test_dagan_live_feeds_a_virtual_camera(tmp_path, command, monkeypatch):
    monkeypatch.setattr(pyvirtualcam.camera, "BACKENDS", {"pretended": FakeCamera})
    clip = write_clip(tmp_path / "camera.mp4", [camera_picture(40 + 2 * i) for i in range(6)])
    model = save_tiny_model(tmp_path / "tiny.safetensors")
    line = ("live", "--camera", clip, "--model", model, "--device", "cpu", "--to", "virtual-camera")
    FakeCamera.sent.clear()
    code, _, said = command(*line)
    assert code == 0, said
    assert "camera pretended" in said
    assert len(FakeCamera.sent) > 0
    code, _, said = command(*line, "--virtual-device", "gone")
    assert code == 2
    assert "there is no virtual camera (" in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--camera", "/dev/video97"], "camera /dev/video97 cannot be opened"), (["--to", "wall"], "--to is 'wall'"),
        (["--camera", "CLIP", "--move", "feet"], "--move is 'feet'"), (["--camera", "CLIP", "--strength", "3"], "--strength is 3"),
        (["nobody.png"], "nobody.png does not exist"), (["--camera", "CLIP", "waves.png"], "no face found in waves.png"),
        (["--camera", "waves.txt"], "cannot be read as a video"),
    ],
)  # fmt: skip
def test_dagan_live_says_what_it_cannot_use(words, why, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "tiny.safetensors")
    Image.fromarray(moving_pictures(1, 200, 200)[0]).save("waves.png")
    (tmp_path / "waves.txt").write_text("waves")
    clip = write_clip(tmp_path / "clip.mp4", [camera_picture()] * 3)
    words = [str(clip) if word == "CLIP" else word for word in words]
    code, _, said = command("live", "--model", "tiny.safetensors", "--device", "cpu", "--port", "0", "--no-browser", *words)
    assert code == 2
    assert why in said


def test_threads_end(engine):
    before = threading.active_count()
    newest = Newest(Driver(engine, PORTRAIT, animate(engine)), 2, None, lambda answer: None)
    newest.offer(camera_picture(), None)
    newest.close()
    assert threading.active_count() <= before
