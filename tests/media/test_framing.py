"""The training crop: where it lies, what it holds, and back into the picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagan.errors import InputError
from dagan.media.framing import FACE_SHARE, Framing, crop, fit_box, frame_still, paste
from faces_seen import seen

SMOOTH = np.indices((300, 400)).sum(0)[..., None] / 700 * np.array([200, 120, 250])
PICTURE = np.rint(SMOOTH).astype(np.uint8)


class Sees:
    """A finder that answers with given boxes."""

    most_samples = 100

    def __init__(self, *boxes):
        self.boxes = boxes

    def find_faces(self, image, *, thorough=True):
        return [seen(box) for box in self.boxes]


def test_face_takes_half_of_the_side_in_the_middle():
    framing = frame_still(np.zeros((1000, 1500, 3), np.uint8), Sees((700, 400, 780, 500)))
    assert framing == Framing(740, 450, pytest.approx(100 / FACE_SHARE))


@pytest.mark.parametrize(("box", "centre"), [((0, 0, 80, 100), (96.15, 96.15)), ((1420, 900, 1500, 1000), (1403.85, 903.85))])
def test_moved_into_the_picture(box, centre):
    framing = fit_box(box, 100, 1500, 1000)
    assert (framing.center_x, framing.center_y) == pytest.approx(centre, abs=0.01)
    assert framing.side == pytest.approx(100 / FACE_SHARE)


def test_tight_pictures_are_taken_whole_before_the_border_is_crossed():
    assert fit_box((200, 60, 360, 260), 200, 600, 330).side == 330  # the usual share would need 385
    crossing = fit_box((200, 10, 440, 290), 280, 600, 300)  # 93 % of the height
    assert crossing.side == pytest.approx(280 / 0.69)
    assert crossing.bounds[1] < 0
    assert crossing.bounds[3] > 300


@pytest.mark.parametrize("share", [0.41, 0.5, 0.6, 0.69])
def test_framed_pictures_stay_as_they_are(share):
    face = 256 * share
    box = (128 - face * 0.4, 120 - face / 2, 128 + face * 0.4, 120 + face / 2)
    assert fit_box(box, face, 256, 256) == Framing(128, 128, 256)
    image = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    assert np.array_equal(crop(image, fit_box(box, face, 256, 256), 256), image)


def test_small_or_lateral_faces_in_square_pictures_are_cropped():
    assert fit_box((100, 100, 150, 160), 60, 256, 256).side < 130
    assert fit_box((10, 70, 110, 190), 120, 256, 256).side < 240


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(16, 1200), height=st.integers(16, 1200), x=st.floats(-0.2, 1.2), y=st.floats(-0.2, 1.2),
    tall=st.floats(0.01, 2.0), wide=st.floats(0.3, 1.5), size=st.sampled_from([64, 256]),
)  # fmt: skip
def test_any_box_in_any_picture_gives_a_crop(width, height, x, y, tall, wide, size):
    tall *= min(width, height)
    box = (x * width - wide * tall / 2, y * height - tall / 2, x * width + wide * tall / 2, y * height + tall / 2)
    framing = fit_box(box, tall, width, height)
    left, top, right, bottom = framing.bounds
    if framing.side <= min(width, height):
        assert min(left, top, width - right, height - bottom) > -1e-6 * max(width, height)
    else:
        assert tall / framing.side <= 0.6901
    assert crop(np.zeros((height, width, 3), np.uint8), framing, size).shape == (size, size, 3)


def test_several_faces_are_told_and_none_is_an_error():
    said = []
    image = np.zeros((300, 400, 3), np.uint8)
    framing = frame_still(image, Sees((100, 100, 160, 180), (300, 100, 330, 140)), "a.png", said.append)
    assert framing.center_x == 130
    assert said == ["2 faces in a.png: the largest is used"]
    with pytest.raises(InputError, match=r"no face found in a\.png"):
        frame_still(image, Sees(), "a.png", said.append)


def test_real_face(finder, astronaut):
    framing = frame_still(astronaut, finder)
    assert framing.center_x == pytest.approx(226, abs=12)
    assert framing.center_y == pytest.approx(124, abs=12)
    assert framing.side == pytest.approx(109 / FACE_SHARE, rel=0.1)


def test_crop_samples_the_right_places():
    """On a smooth picture each pixel of a crop equals the picture at its centre, enlarged or shrunk."""
    for framing, size in ((Framing(170.3, 140.7, 120), 256), (Framing(200, 150, 280), 64), (Framing(201, 149, 100), 100)):
        left, top, _, _ = framing.bounds
        x = left + (np.arange(size) + 0.5) * framing.side / size - 0.5
        y = top + (np.arange(size) + 0.5) * framing.side / size - 0.5
        expected = (x[None, :] + y[:, None])[..., None] / 700 * np.array([200, 120, 250])
        assert np.abs(crop(PICTURE, framing, size) - expected)[4:-4, 4:-4].max() < 1.2


def test_crop_is_antialiased():
    checks = (np.indices((400, 400)).sum(0) % 2 * 255).astype(np.uint8)
    small = crop(np.repeat(checks[..., None], 3, axis=2), Framing(200, 200, 390), 60)
    assert np.abs(small.astype(int) - 127).max() < 12


def test_crop_repeats_the_border():
    result = crop(np.full((50, 50, 3), 99, np.uint8), Framing(10, 10, 90), 64)
    assert (result == 99).all()


@pytest.mark.parametrize("framing", [Framing(170.3, 140.7, 120.4), Framing(200, 150, 300), Framing(30, 280, 100), Framing(200, 150, 460)])
@pytest.mark.parametrize("size", [64, 256])
def test_pasting_a_crop_back_changes_almost_nothing(framing, size):
    back = paste(PICTURE, crop(PICTURE, framing, size), framing)
    assert back.shape == PICTURE.shape
    assert np.abs(back.astype(int) - PICTURE).max() <= 3
    assert np.abs(back.astype(int) - PICTURE).mean() < 0.5


def test_paste_fades_in_and_leaves_the_rest():
    image = np.zeros((300, 400, 3), np.uint8)
    result = paste(image, np.full((64, 64, 3), 200, np.uint8), Framing(200, 150, 100))
    assert result is not image
    assert not image.any()
    outside = result.copy()
    outside[100:200, 150:250] = 0
    assert not outside.any()
    assert (result[108:192, 158:242] == 200).all()
    rim = result[150, 150:158, 0].astype(int)
    assert (np.diff(rim) >= 0).all()
    assert rim[0] < 30
    assert np.array_equal(result, result[::-1])


def test_paste_reaches_the_border_without_a_seam():
    result = paste(np.zeros((300, 400, 3), np.uint8), np.full((64, 64, 3), 200, np.uint8), Framing(60, 60, 120))
    assert (result[0, :100] == 200).all()
    assert (result[:100, 0] == 200).all()
    whole = paste(np.zeros((128, 128, 3), np.uint8), np.full((64, 64, 3), 200, np.uint8), Framing(64, 64, 128))
    assert (whole == 200).all()


def test_paste_outside_the_picture_changes_nothing():
    assert np.array_equal(paste(PICTURE, np.zeros((64, 64, 3), np.uint8), Framing(-500, 100, 100)), PICTURE)
