"""Cuts are told from flashes, fades, motion and frames that are shown twice."""

import numpy as np
import pytest

from dagan.media.shots import CutFinder


def scene(seed, shift=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (9, 16, 3)).astype(np.uint8)
    return np.roll(coarse.repeat(20, 0).repeat(20, 1), shift, axis=1)


def cuts(pictures, rate=25):
    finder = CutFinder(rate)
    found = [finder.add(picture, index / rate) for index, picture in enumerate(pictures)]
    return [round(time * rate) for time in [*found, *finder.rest()] if time is not None]


def test_each_cut_is_found_at_its_frame():
    pictures = [scene(1)] * 20 + [scene(2)] * 15 + [scene(3)] * 8 + [scene(1)] * 2
    assert cuts(pictures) == [20, 35, 43]
    assert cuts(pictures, rate=10) == [20, 35, 43]


def test_shots_may_begin_and_end_black():
    black = np.zeros((180, 320, 3), np.uint8)
    assert cuts([black] * 12 + [scene(1)] * 12 + [black] * 12) == [12, 24]


def test_a_cut_between_shots_that_move():
    pictures = [scene(1, i) for i in range(30)] + [scene(2, -2 * i) for i in range(30)]
    assert cuts(pictures) == [30]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(length):
    for level in (0, 255):
        flash = [np.full((180, 320, 3), level, np.uint8)] * length
        assert cuts([scene(1)] * 15 + flash + [scene(1)] * 15) == []
        assert cuts([scene(1, i // 2) for i in range(30)] + flash + [scene(1, i // 2) for i in range(30, 60)]) == []


def test_fades_and_dissolves_are_no_cuts():
    a, b, black = (x.astype(float) for x in (scene(1), scene(2), np.zeros((180, 320, 3))))
    for first, second in ((a, black), (black, b), (a, b)):
        ramp = [((1 - w) * first + w * second).astype(np.uint8) for w in np.linspace(0, 1, 20)]
        assert cuts([ramp[0]] * 10 + ramp + [ramp[-1]] * 10) == []


def test_quick_motion_is_no_cut():
    assert cuts([scene(1, 7 * i) for i in range(60)]) == []
    twice = [scene(1, 14 * (i // 2)) for i in range(60)]
    assert cuts(twice) == []


def test_noise_is_no_cut():
    rng = np.random.default_rng(0)
    assert cuts([np.clip(scene(1) + rng.normal(0, 12, (180, 320, 3)), 0, 255).astype(np.uint8) for _ in range(40)]) == []
