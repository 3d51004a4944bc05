"""The page in a real browser: what a visitor sees and does, by mouse and keyboard, and that the page asks nothing of other hosts.

Chromium comes from the system; `.ci/run` installs it. Without one, these tests are left out, and say so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app_conditions import until
from bad_uploads import BAD, PHOTO
from dagan.examples import PORTRAIT
from dagan.media.images import read_image

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this system: apt-get install chromium, or name one in CHROMIUM"),
]
PATIENCE = 60_000  # Milliseconds.
SOFTWARE = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film for Chromium's pretended camera: the bundled portrait's face, which nods and now and then goes away."""
    import av

    face = Image.fromarray(read_image(PORTRAIT)).crop((130, 0, 330, 200)).resize((400, 400))
    path = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=20)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
        for i in range(60):
            picture = Image.new("RGB", (640, 480), (120, 130, 140))
            if i < 45:
                picture.paste(face, (110 + round(15 * np.sin(i / 4)), 40))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def browser(camera: Path) -> Iterator[Browser]:
    pretended = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", f"--use-file-for-fake-video-capture={camera}"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*SOFTWARE, *pretended])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser, page: object) -> Iterator[Callable[..., Page]]:
    """visit(width=, path=, colours=) -> an open page. At the end nothing has gone wrong in it, and nothing was asked of other hosts."""
    opened: list[Page] = []
    elsewhere: list[str] = []
    faults: list[str] = []

    def call(width: int = 1280, path: str = "", colours: str = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=colours)
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE)
        own = (page.address, page.address.replace("http", "ws"), "data:", "blob:")
        tab.on("request", lambda request: None if request.url.startswith(own) else elsewhere.append(request.url))
        tab.on("websocket", lambda socket: None if socket.url.startswith(own) else elsewhere.append(socket.url))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(page.address + path)
        tab.locator("#start, #picture, #go").first.wait_for()
        opened.append(tab)
        return tab

    yield call
    for tab in opened:
        tab.context.close()
    assert elsewhere == []
    assert faults == []


def choose(tab: Page, name: str) -> None:
    """Opens a tab, where not all fit by the menu. Gradio keeps a hidden copy of each, by which it measures what fits."""
    shown = tab.get_by_role("tab", name=name).filter(visible=True)
    if shown.count():
        shown.first.click()
    else:
        tab.get_by_label("More tabs").click()
        tab.locator(".overflow-dropdown button").filter(has_text=name).click()


def test_an_example_is_animated_by_one_click_and_a_long_job_is_stopped(visit, page):
    tab = visit()
    tab.get_by_role("button", name="Animate", exact=True).click()
    video = tab.locator("#result video")
    expect(video).to_be_attached(timeout=PATIENCE)
    expect(tab.locator("#status")).to_contain_text("12 frames", timeout=PATIENCE)
    tab.wait_for_function("() => document.querySelector('#result video').videoWidth === 64")
    with tab.expect_download() as download:
        tab.locator("#result").get_by_role("link", name="Download").or_(tab.locator("#result [aria-label=Download]")).first.click()
    assert download.value.path().stat().st_size > 1000

    tab.get_by_label("Long").check()
    tab.get_by_role("button", name="Animate", exact=True).click()
    expect(tab.get_by_role("progressbar", name="Progress of the job")).to_be_visible(timeout=PATIENCE)
    expect(tab.locator("#status")).to_contain_text("left", timeout=PATIENCE)
    tab.get_by_role("button", name="Stop").click()
    expect(tab.locator("#status")).to_contain_text("Stopped", timeout=PATIENCE)
    expect(tab.get_by_role("button", name="Animate", exact=True)).to_be_enabled()


@pytest.mark.slow
def test_twelve_bad_uploads_are_each_said_in_one_sentence_and_a_good_one_works(visit, samples, tmp_path):
    tab = visit()
    assert len(BAD) == 12
    for bad in BAD:
        path = tmp_path / bad.name
        bad.write(path)
        field = tab.locator("#animate-photo" if bad.field == PHOTO else "#video")
        field.locator("input[type=file]").first.set_input_files(path)
        alert = tab.locator("#status [role=alert]")
        expect(alert).to_contain_text(bad.name[1:], timeout=PATIENCE)  # The sentence begins with its name, in a capital letter.
        expect(alert).to_contain_text(bad.why)
        sentence = alert.inner_text()
        assert sentence.endswith("."), sentence
        assert str(tmp_path) not in sentence
        assert "dagan-page" not in sentence
        expect(field.locator("img, video")).to_have_count(0)
    tab.locator("#animate-photo input[type=file]").first.set_input_files(PORTRAIT)
    expect(tab.locator("#status")).to_contain_text("The photo is here", timeout=PATIENCE)
    tab.locator("#video input[type=file]").first.set_input_files(samples / "driving.mp4")
    expect(tab.get_by_label("My own video").first).to_be_checked(timeout=PATIENCE)
    tab.get_by_role("button", name="Animate", exact=True).click()
    expect(tab.locator("#status")).to_contain_text("with sound", timeout=PATIENCE)


def test_the_mesh_turns(visit):
    tab = visit()
    choose(tab, "Depth")
    tab.get_by_role("button", name="Measure depth").click()
    canvas = tab.locator("#depth-mesh canvas")
    expect(canvas).to_be_visible(timeout=PATIENCE)
    expect(tab.locator("#depth-map img")).to_be_visible()

    def shown() -> np.ndarray:
        import io

        return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(int)

    until(lambda: shown().std() > 25, 30)  # The portrait is there, and not the ground alone.
    before, box = shown(), canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 90, y + 15, steps=4)
    tab.mouse.up()
    until(lambda: np.abs(shown() - before).mean() > 4, 20)


def test_sliders_pose_the_photo(visit):
    tab = visit()
    choose(tab, "Pose")
    picture = tab.locator("#pose-result img")

    def move(name: str, value: str) -> str:
        before = picture.get_attribute("src") if picture.count() else ""
        slider = tab.locator(f"#pose-{name} input[type=range]")
        slider.focus()
        slider.fill(value)
        until(lambda: picture.count() > 0 and picture.get_attribute("src") != before, 60)
        return picture.get_attribute("src")

    turned, other = move("yaw", "20"), move("yaw", "-20")
    assert turned != other
    assert move("zoom", "1.4") not in (turned, other)
    tab.locator("#pose-yaw input[type=range]").press("ArrowRight")  # The keyboard moves it by one step.
    expect(tab.locator("#pose-yaw input[type=number]")).to_have_value("-19")
    tab.get_by_role("button", name="Back to the photo").click()
    expect(tab.locator("#pose-zoom input[type=number]")).to_have_value("1")
    values = cycle(["1", "0.9"])

    def refused() -> bool:  # The answer to the button may still set the slider back, so it is moved until it counts.
        tab.locator("#pose-smile input[type=range]").fill(next(values))
        tab.wait_for_timeout(2000)
        return tab.locator("#pose-line [role=alert]").count() > 0

    until(refused, 60)  # The model of the tests has no keypoints at the mouth.
    expect(tab.locator("#pose-line [role=alert]")).to_contain_text("Smile", timeout=PATIENCE)


def test_the_camera_drives_and_the_face_is_lost_and_found(visit, page):
    tab = visit(path="live")
    tab.get_by_role("button", name="Start").click()
    tab.wait_for_function("() => window.daganLive && window.daganLive.frames > 5")
    assert "pictures a second" in tab.locator("#numbers").inner_text()
    expect(tab.locator("#status")).to_contain_text("No face is seen", timeout=PATIENCE)
    at = tab.evaluate("window.daganLive.frames")
    tab.wait_for_function(f"() => window.daganLive.frames > {at + 3}")
    assert tab.locator("#camera").evaluate("element => getComputedStyle(element).transform").startswith("matrix(-1")
    tab.get_by_label("Another portrait").set_input_files(PORTRAIT)
    expect(tab.get_by_role("radio", name="astronaut.png")).to_be_checked()
    tab.get_by_role("button", name="Re-centre").click()
    clean = visit(path="live/view")
    clean.wait_for_function("() => Number(document.body.dataset.frames) > 2")
    assert clean.locator("body > *:visible").count() == 1
    tab.get_by_role("button", name="Stop").click()
    expect(tab.locator("#status")).to_contain_text("Stopped")


@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (390, "dark")])
def test_the_page_fits_and_has_a_name_for_everything(visit, width, colours):
    tab = visit(width, colours=colours)
    for name in ("Animate", "Live", "Pose", "Depth", "About"):
        choose(tab, name)
        tab.wait_for_timeout(300)
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} pixels wide"
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground.strip("rgb()a").split(",")[:3]) > 380) == (colours == "light")
    nameless = tab.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, video[controls], canvas, iframe')]
            .filter((e) => e.offsetParent && !(e.ariaLabel || e.title || e.innerText.trim() || e.labels?.length || e.dataset.testid))
            .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []


def test_an_animation_is_made_by_keyboard_alone(visit):
    tab = visit()
    expect(tab.locator("#go")).to_be_visible()
    for _ in range(60):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "go":
            break
    assert tab.evaluate("document.activeElement.id") == "go"
    tab.keyboard.press("Enter")
    expect(tab.locator("#status")).to_contain_text("12 frames", timeout=PATIENCE)


