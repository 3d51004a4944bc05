"""Anchors, decoding and tiles of the detector, without its network."""

from itertools import pairwise

import numpy as np
import pytest

from dagan.media.face_detector import Detection, Roi, anchors, decode, detect_in, overlap, tiles, whole


def test_anchor_layout():
    places = anchors()
    assert places.shape == (896, 2)
    assert np.allclose(places[:2], 0.5 / 16)
    assert np.allclose(places[2], [1.5 / 16, 0.5 / 16])  # x runs first
    assert np.allclose(places[511], 15.5 / 16)
    assert np.allclose(places[512:518], 0.5 / 8)
    assert np.allclose(places[895], 7.5 / 8)


def answer(hits):
    """Raw network output with the given (anchor, centre offset, size, logit), all other anchors silent."""
    raw, logits = np.zeros((896, 16), np.float32), np.full(896, -50, np.float32)
    for anchor, (dx, dy), (w, h), logit in hits:
        raw[anchor, :4] = dx, dy, w, h
        across, down = np.array([-w / 4, w / 4, 0, 0, -w / 2, w / 2]), np.array([0, 0, 0, h / 4, 0, 0])
        raw[anchor, 4:] = np.stack([dx + across, dy + down], axis=1).ravel()
        logits[anchor] = logit
    return raw, logits


def test_decoding_one_box():
    """Anchor 600 is the fifth of its cell: 88 // 6 = 14, so row 1, column 6 of 8."""
    raw, logits = answer([(600, (6.4, -12.8), (32, 64), 2.0)])
    ((box, points, score),) = decode(raw, logits, 0.5)
    x, y = 6.5 / 8 + 0.05, 1.5 / 8 - 0.1
    assert np.allclose(box, [x - 0.125, y - 0.25, x + 0.125, y + 0.25])
    assert np.allclose(points[:2], [[x - 0.0625, y], [x + 0.0625, y]])
    assert score == pytest.approx(1 / (1 + np.exp(-2)))


def test_overlapping_boxes_are_averaged_by_score_and_others_kept():
    same = [(600, (0, 0), (64, 64), 3.0), (601, (4, 0), (64, 64), 1.0)]
    other = (0, (10, 10), (20, 20), 0.5)
    found = decode(*answer([*same, other]), 0.5)
    assert len(found) == 2
    scores = 1 / (1 + np.exp(-np.array([3.0, 1.0])))
    shift = scores[1] / scores.sum() * 4 / 128
    assert found[0][0][0] == pytest.approx(6.5 / 8 - 0.25 + shift)
    assert found[0][2] == pytest.approx(scores[0])
    assert found[1][2] < found[0][2]


def test_weak_and_absurd_scores():
    assert decode(*answer([(600, (0, 0), (64, 64), -0.1)]), 0.5) == []
    assert decode(*answer([(600, (0, 0), (64, 64), 1e9)]), 0.5)[0][2] == pytest.approx(1)


def test_overlap():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 0, 0]], float)
    assert np.allclose(overlap(boxes[0], boxes), [1, 1 / 3, 0, 0])


class Brightest:
    """Stands in for the network: a face at the brightest cell of the 16 x 16 grid, as large as a quarter of the input."""

    def __init__(self):
        self.ranges = []

    def run(self, values):
        assert values.shape == (1, 128, 128, 3)
        self.ranges.append((values.min(), values.max()))
        cells = values[0, ..., 0].reshape(16, 8, 16, 8).mean(axis=(1, 3))
        raw, logits = answer([(2 * int(cells.argmax()), (0, 0), (32, 32), 4.0)])
        return {"regressors": raw[None], "classificators": logits[None, :, None]}


def test_detections_land_in_the_picture():
    """A wide picture is fitted into the square; the answer comes back in its pixels."""
    image = np.zeros((180, 320, 3), np.uint8)
    image[60:80, 200:220] = 255
    network = Brightest()
    (found,) = detect_in(network, image, whole(image))
    assert isinstance(found, Detection)
    centre = np.array([(found.box[0] + found.box[2]) / 2, (found.box[1] + found.box[3]) / 2])
    assert np.abs(centre - [210, 70]).max() <= 10  # half a cell
    assert found.box[2] - found.box[0] == pytest.approx(80)
    assert network.ranges == [(-1, 1)]


@pytest.mark.parametrize("shape", [(512, 512), (1080, 1920), (2160, 3840), (3000, 400), (100, 100), (97, 2000)])
def test_tiles_cover_the_picture_and_shrink(shape):
    image = np.zeros((*shape, 3), np.uint8)
    sides = []
    for regions in tiles(image):
        assert len(regions) <= 300
        assert len({region.side for region in regions}) == 1
        side = regions[0].side
        sides.append(side)
        for x, y in ((0.5, 0.5), (shape[1] - 0.5, shape[0] - 0.5), (shape[1] / 3, shape[0] / 2), (shape[1] / 1.7, shape[0] / 5)):
            assert any(abs(x - r.x) <= r.side / 2 and abs(y - r.y) <= r.side / 2 for r in regions)
        for a, b in pairwise(regions):
            assert a.y != b.y or b.x - a.x <= side / 2 + 1e-6
    assert sides == sorted(sides, reverse=True)
    assert all(side >= 96 for side in sides)
    if max(shape) > 500:
        assert sides[0] < max(shape)


def test_whole_is_the_enclosing_square():
    assert whole(np.zeros((10, 30, 3))) == Roi(15, 5, 30)
