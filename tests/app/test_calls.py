"""The page from programs: its calls, its places, and what stays behind."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from app_conditions import until
from dagan.examples import PORTRAIT
from dagan.media.video import open_video


@pytest.fixture
def client(page, tmp_path):
    made = Client(page.address, verbose=False, download_files=tmp_path / "downloads")
    yield made
    made.close()


def animate(client: Client, **more: object) -> Path:
    result = client.predict(photo=handle_file(PORTRAIT), api_name="/animate", **{"video": None, "motion": "Short", **more})
    return Path(result["path"] if isinstance(result, dict) else result)


@pytest.mark.slow
def test_a_photo_is_animated_with_a_video_and_its_sound(client, samples):
    result = animate(client, video=handle_file(samples / "driving.mp4"))
    with open_video(result) as video:
        assert (video.frame_count, video.width, video.has_audio) == (12, 64, True)


def test_a_bundled_motion_needs_no_video_and_layouts_can_be_chosen(client):
    result = animate(client, show="whole photo")
    with open_video(result) as video:
        assert (video.frame_count, video.width) == (12, 512)


def test_depth_gives_a_picture_and_a_mesh(client):
    picture, mesh = client.predict(handle_file(PORTRAIT), api_name="/depth")
    assert Path(picture).read_bytes()[:4] == b"\x89PNG"
    assert Path(mesh).read_bytes()[:4] == b"glTF"


def test_a_pose_gives_a_picture(client):
    pictures = [Path(client.predict(photo=handle_file(PORTRAIT), yaw=yaw, api_name="/pose")).read_bytes() for yaw in (20, -20)]
    assert pictures[0][:4] == b"\x89PNG"
    assert pictures[0] != pictures[1]
    with pytest.raises(AppError, match="Yaw is 90: must be from -60 to 60"):
        client.predict(photo=handle_file(PORTRAIT), yaw=90, api_name="/pose")


def test_bad_uploads_are_one_sentence_here_too(client, samples, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(AppError, match=r"Bad.png is not an image|bad.png is not an image"):
        client.predict(handle_file(bad), api_name="/depth")
    with pytest.raises(AppError, match="side-by-side"):
        animate(client, show="side by side")
    with pytest.raises(AppError, match="an address is no upload"):
        client.predict({"path": "http://127.0.0.1:1/x.png", "meta": {"_type": "gradio.FileData"}}, api_name="/depth")


def test_only_the_calls_that_are_documented_can_be_made(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    page = (Path(__file__).parents[2] / "docs" / "app.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in named)
    assert {"/animate", "/depth", "/pose"} == set(named)


@pytest.mark.slow
def test_five_at_once_are_all_served_and_nothing_stays(serve, samples):
    served = serve()

    def visit(number: int) -> int:
        visitor = Client(served.address, verbose=False, download_files=False)
        try:
            for _ in range(2):
                animate(visitor, video=handle_file(samples / "driving.mp4"))
            return number
        finally:
            visitor.close()

    with ThreadPoolExecutor(5) as visitors:
        assert sorted(visitors.map(visit, range(5))) == [0, 1, 2, 3, 4]
    until(lambda: served.folder.visitors_files() == [], 15)


@pytest.mark.slow
def test_a_visitor_who_vanishes_frees_the_place(serve):
    served = serve()
    gone = Client(served.address, verbose=False)
    long = gone.submit(photo=handle_file(PORTRAIT), motion="Long", api_name="/animate")
    until(lambda: any("dagan.mp4" in path.name or ".part" in path.name for path in served.folder.files()), 20)
    gone.close()
    long.cancel()
    began = time.monotonic()
    next_one = Client(served.address, verbose=False, download_files=False)
    animate(next_one)
    assert time.monotonic() - began < 10
    next_one.close()
    until(lambda: served.folder.visitors_files() == [], 15)


def test_the_password_lets_programs_in(serve):
    served = serve(password="secret")
    visitor = Client(served.address, auth=("dagan", "secret"), verbose=False, download_files=False)
    try:
        visitor.predict(handle_file(PORTRAIT), api_name="/depth")
    finally:
        visitor.close()
