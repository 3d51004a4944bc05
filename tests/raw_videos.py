"""Raw videos as people have them, made on the spot: the bundled portrait talks, and is cut, turned, covered, hidden, too small or too dark.

A head is a picture 256 x 256 that is framed as in training; a scene is a larger picture with a head in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from dagan.animate.pipeline import AnimateOptions, animate
from dagan.cli.animate import MOTION, PORTRAIT
from dagan.engine.open import open_engine
from dagan.media.colour import BT2020, PQ
from dagan.media.video import open_video
from dagan.motion.file import read_motion, save_motion
from hdr_samples import encoded, write

Pictures = list[np.ndarray]
_FRAMES = 26  # of the animated portrait; forwards and backwards they make a second of 50


def talking_head(folder: Path) -> Pictures:
    """The bundled portrait, animated by a part of the bundled motion: 50 frames that can be repeated."""
    motion = read_motion(MOTION)
    begin = motion.reference
    part = slice(begin, begin + _FRAMES)
    times = tuple(time - motion.times[begin] for time in motion.times[begin : begin + _FRAMES + 1])
    save_motion(folder / "part.motion", replace(motion, value=motion.value[part], jacobian=motion.jacobian[part], times=times, reference=0))
    animate(open_engine("lite-256"), PORTRAIT, folder / "part.motion", folder / "talking.mkv", AnimateOptions())
    frames = [frame.image for frame in open_video(folder / "talking.mkv")]
    return frames + frames[-2:0:-1]


def another(head: np.ndarray) -> np.ndarray:
    """Somebody who looks otherwise: mirrored, darker hair and skin, and a blue light."""
    return (head[:, ::-1] * np.array([0.7, 0.75, 0.95])).astype(np.uint8)


def scene(head: np.ndarray, size: tuple[int, int] = (320, 256), place: tuple[int, int] = (32, 0), seed: int = 0) -> np.ndarray:
    """Puts a head into a soft background of that width and height."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(40, 200, (5, 7, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    soft.paste(Image.fromarray(head), place)
    return np.asarray(soft)


def write_raw(path: Path, pictures: Sequence[np.ndarray], rate: int = 25, rotation: int = 0) -> Path:
    """An H.264 file through plain PyAV."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "14", "preset": "ultrafast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def wandering(pictures: Pictures, reach: float = 5.0) -> Pictures:
    """The same pictures, shifted to and fro."""
    return [np.roll(picture, round(reach * np.sin(i / 4)), axis=1) for i, picture in enumerate(pictures)]


def _drawn(picture: np.ndarray, draw: Callable[[ImageDraw.ImageDraw], object]) -> np.ndarray:
    image = Image.fromarray(picture)
    draw(ImageDraw.Draw(image))
    return np.asarray(image)


def captioned(picture: np.ndarray) -> np.ndarray:
    font = ImageFont.load_default(18)
    return _drawn(picture, lambda pen: pen.text((95, 150), "BREAKING NEWS", (255, 255, 255), font, stroke_width=1, stroke_fill=(0, 0, 0)))


def passed(picture: np.ndarray, step: int) -> np.ndarray:
    """A dark thing passes from left to right."""
    x = 40 + 16 * step
    return _drawn(picture, lambda pen: pen.ellipse((x - 30, 90, x + 30, 190), fill=(50, 40, 40)))


def slide(number: int) -> np.ndarray:
    font = ImageFont.load_default(20)
    return _drawn(
        np.full((256, 320, 3), 240, np.uint8),
        lambda pen: [pen.text((20, 20 + 40 * i), f"{number}.{i} Results of the year", (20, 20, 60), font) for i in range(5)],
    )


def panned(head: np.ndarray, frames: int) -> Pictures:
    """A photo over which a camera pans and zooms."""
    photo, pictures = Image.fromarray(head), []
    for i in range(frames):
        side = 256 - 0.5 * i
        left = (256 - side) * (0.5 + 0.4 * np.sin(i / 9))
        pictures.append(np.asarray(photo.resize((256, 256), Image.Resampling.BICUBIC, box=(left, 0, left + side, side))))
    return pictures


def smaller(head: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(head).resize((side, side), Image.Resampling.LANCZOS))


def softened(head: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(head).filter(ImageFilter.GaussianBlur(3.5)))


def cut_off(path: Path, share: float) -> Path:
    """Throws the rest of a file away."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def twenty_raws(folder: Path, head: Pictures) -> None:
    """Writes them, each named by what is special about it."""
    folder.mkdir(exist_ok=True)
    two = head + head  # 100 frames
    plain = [scene(picture) for picture in two[:60]]
    black = [np.zeros((256, 320, 3), np.uint8)] * 15
    other = [scene(another(picture), place=(60, 0), seed=1) for picture in two[:45]]
    wide = [np.array(scene(a, (640, 256), (16, 0), 2)) for a in two[:45]]
    for picture, b in zip(wide, two[20:65], strict=True):
        picture[:, 368:624] = another(b)
    near = [np.array(scene(a, (480, 256), (0, 0), 2)) for a in two[:45]]
    for picture, b in zip(near, two[20:65], strict=True):
        picture[56:256, 200:340] = another(b)[28:228, 58:198]

    write_raw(folder / "plain.mp4", plain)
    (folder / "copy.mp4").write_bytes((folder / "plain.mp4").read_bytes())
    write_raw(folder / "cuts.mp4", [*plain[:45], *other, *plain[10:50]])
    write_raw(folder / "turned-phone.mp4", [np.rot90(picture) for picture in plain[:45]], rotation=-90)
    write_raw(folder / "sideways.mp4", [np.rot90(picture) for picture in plain[:45]])
    write(folder / "hdr.mkv", [encoded(picture, PQ, BT2020) for picture in plain[:40]], PQ, BT2020, "yuv420p10le")
    write_raw(folder / "second-face.mp4", near)
    write_raw(folder / "two-people.mp4", wide)
    write_raw(folder / "black-between.mp4", [*plain[:40], *black, *other[:40]])
    cut_off(write_raw(folder / "truncated.mkv", [*plain, *plain]), 0.6)
    write_raw(folder / "sixty.mp4", [picture for picture in plain[:40] for _ in range(2)][:80], rate=60)
    write_raw(folder / "portrait-format.mp4", [scene(picture, (256, 456), (0, 100), 3) for picture in two[:45]])
    write_raw(folder / "slides.mp4", [slide(i // 20) for i in range(60)])
    write_raw(folder / "still.mp4", [scene(picture) for picture in panned(head[0], 45)])
    write_raw(folder / "small.mp4", [scene(smaller(picture, 80), place=(120, 80)) for picture in two[:45]])
    write_raw(folder / "blurred.mp4", [scene(softened(picture)) for picture in two[:45]])
    write_raw(folder / "caption.mp4", [captioned(picture) for picture in wandering(plain[:45])])
    write_raw(folder / "passing.mp4", [passed(picture, i - 20) if 20 <= i < 34 else picture for i, picture in enumerate(plain[:55])])
    write_raw(folder / "border.mp4", [scene(picture, place=(-95, 0)) for picture in two[:45]])
    write_raw(folder / "brief.mp4", [*plain[:15], *[slide(9)] * 20])
    write_raw(folder / "dark.mp4", [picture // 9 for picture in plain[:45]])
    write_raw(folder / "wanderer.mp4", [scene(a, (480, 256), (2 * i, 0)) for i, a in enumerate(two[:80])])
    (folder / "text.mp4").write_text("This is no video.")
