"""Videos with cuts, dissolves and people who walk: the face is in the middle of the view in every frame that shows one."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from dagan.media.landmarks import FaceLandmarker
from dagan.media.video import VideoWriter, open_video
from dagan.media.view import frame_video, read_view


def place(picture, side, x, y, width=640, height=360):
    """The picture, side pixels high, with its upper left corner at (x, y) of a grey one."""
    wide = Image.new("RGB", (width, height), (110, 110, 110))
    wide.paste(Image.fromarray(picture).resize((side, side)), (x, y))
    return np.asarray(wide)


def film(path, pictures):
    height, width = pictures[0].shape[:2]
    with VideoWriter(path, width, height, rate=25, crf=12) as writer:
        for index, picture in enumerate(pictures):
            writer.write(picture, Fraction(index, 25))
    return open_video(path)


def off_middle(reader, framing):
    """For each frame how far the face's middle is from the view's, in shares of its side; None where no face is seen."""
    landmarker = FaceLandmarker()
    found = []
    for _, view in read_view(reader, framing, 256):
        faces = landmarker.detect(view, thorough=False)
        x0, y0, x1, y1 = faces[0].box if faces else (np.nan,) * 4
        found.append(max(abs(x0 + x1 - 256), abs(y0 + y1 - 256)) / 512)
    return np.array(found)


def test_each_shot_is_framed_for_itself(tmp_path, finder, astronaut):
    """Left, right, large; the background stays the same grey."""
    shots = [(200, 0, 0), (200, 430, 150), (340, 150, 10)]
    said = []
    with film(tmp_path / "a.mp4", [place(astronaut, *shot) for shot in shots for _ in range(9)]) as reader:
        framing = frame_video(reader, finder, said.append)
        assert framing.starts == (0.0, 0.36, 0.72)
        assert said == [f"{tmp_path / 'a.mp4'}: 3 shots: each is framed for itself"]
        assert off_middle(reader, framing).max() < 0.1


def test_across_a_dissolve_nothing_is_averaged(tmp_path, finder, astronaut):
    first, second = place(astronaut, 240, 10, 60), place(astronaut, 240, 380, 60)
    mixed = [(first * (1 - w) + second * w).astype(np.uint8) for w in np.linspace(0, 1, 8)]
    with film(tmp_path / "a.mp4", [first] * 10 + mixed + [second] * 14) as reader:
        framing = frame_video(reader, finder, lambda _: None)
        assert len(framing.shots) == 2
        off = off_middle(reader, framing)
        assert off[:12].max() < 0.1
        assert off[-12:].max() < 0.1


def test_somebody_who_walks_is_one_shot(tmp_path, finder, astronaut):
    with film(tmp_path / "a.mp4", [place(astronaut, 300, 12 * i - 60, 30) for i in range(30)]) as reader:
        framing = frame_video(reader, finder, lambda _: None)
        assert len(framing.shots) == 1
        assert np.nanmax(off_middle(reader, framing)) < 0.1


@pytest.mark.parametrize("level", [0, 255])
def test_a_flash_ends_no_shot(tmp_path, finder, astronaut, level):
    pictures = [place(astronaut, 300, 100 + i, 30) for i in range(20)]
    pictures[9] = np.full_like(pictures[9], level)
    with film(tmp_path / "a.mp4", pictures) as reader:
        assert len(frame_video(reader, finder, lambda _: None).shots) == 1
