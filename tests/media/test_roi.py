"""Regions: what is cut out lies where the mapping back says."""

import math

import numpy as np
import pytest

from dagan.media.face_detector import Roi, cut, patch, roi_around


def dotted(x, y, size=(200, 300), radius=2.0):
    """A black picture with a soft white dot centred at the continuous position (x, y)."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    value = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return np.repeat(value[..., None], 3, axis=2).astype(np.uint8)


def centre_of_mass(image):
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]] + 0.5
    weight = image[..., 0].astype(float)
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def test_upright_cut_of_the_same_size_is_the_picture_itself():
    image = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    assert np.array_equal(cut(image, Roi(150, 100, 64), 64), image[68:132, 118:182])


@pytest.mark.parametrize("angle", [0, 20, -35, 90, 180])
@pytest.mark.parametrize("side", [60, 128, 190, 420])
def test_a_point_seen_in_the_cut_maps_back_to_its_place(angle, side):
    """Enlarged, kept, shrunk and averaged, at any angle: within 0.15 pixels of the picture."""
    point = np.array([140.3, 96.8])
    radius = max(2.0, side / 60)
    roi = Roi(150, 100, side, math.radians(angle))
    seen = centre_of_mass(cut(dotted(*point, radius=radius), roi, 128))
    assert np.abs(roi.to_image(seen[None] / 128)[0] - point).max() < 0.15


def test_depth_is_scaled_and_not_moved():
    points = np.array([[0.5, 0.5, -0.1], [1.0, 0.5, 0.2]])
    placed = Roi(50, 40, 200, math.pi / 2).to_image(points)
    assert np.allclose(placed, [[50, 40, -20], [50, 140, 40]])


def test_level_eyes_after_cutting():
    """A face that leans is turned upright: its eyes come to lie on one row."""
    right, left = np.array([120.0, 80.0]), np.array([170.0, 110.0])
    roi = roi_around((100, 60, 190, 160), right, left)
    assert roi.side == pytest.approx(150)
    assert math.degrees(roi.angle) == pytest.approx(math.degrees(math.atan2(30, 50)))
    seen = [centre_of_mass(cut(dotted(*eye), roi, 256)) for eye in (right, left)]
    assert abs(seen[0][1] - seen[1][1]) < 0.5
    assert seen[0][0] < seen[1][0]


def test_beyond_the_border_pixels_repeat():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :5] = 200
    result = cut(image, Roi(0, 20, 40), 40)
    assert (result[:, :20] == 200).all()
    pixels, left, top = patch(image, -3.2, 5.5, 4.1, 9.0)
    assert (left, top, pixels.shape) == (-4, 5, (4, 9, 3))


@pytest.mark.parametrize("place", [(-500, 20), (20, 900), (2000, -2000)])
def test_regions_outside_the_picture_still_give_one(place):
    image = np.full((40, 40, 3), 77, np.uint8)
    assert (cut(image, Roi(*place, 30), 32) == 77).all()
