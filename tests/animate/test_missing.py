"""What takes the place of motion that is not there."""

from types import SimpleNamespace

import numpy as np
import pytest

from dagan.animate.driving import FaceWatch, check_on_missing, fill
from dagan.errors import InputError

TIMES = np.arange(100) / 25


def gaps(*spans):
    present = np.ones(100, bool)
    for start, stop in spans:
        present[start:stop] = False
    return present


def test_the_nearest_motion_is_held_at_both_ends():
    values = np.arange(100, dtype=np.float32)
    filled = fill(values, gaps((0, 10), (90, 100)), TIMES)
    assert (filled[:10] == 10).all()
    assert (filled[90:] == 89).all()
    assert (filled[10:90] == values[10:90]).all()


def test_a_gap_holds_what_was_before_then_goes_over_to_what_comes():
    values = np.where(np.arange(100) < 50, 1.0, 3.0).astype(np.float32)
    values[20:80] = 77  # never to be seen
    filled = fill(values, gaps((20, 80)), TIMES)
    assert (filled[20:43] == 1).all()
    assert (filled[57:80] == 3).all()
    assert (np.diff(filled) >= 0).all()
    assert np.diff(filled).max() < 0.3  # half a second for the way


def test_rest_is_eased_to_and_from():
    values = np.full((100, 2, 2), 5.0, np.float32)
    rest = np.zeros((2, 2), np.float32)
    filled = fill(values, gaps((30, 70)), TIMES, rest)
    assert (filled[45:55] == 0).all()
    assert np.abs(np.diff(filled, axis=0)).max() < 0.7
    assert (fill(values, gaps((0, 20)), TIMES, rest)[:5] == 0).all()
    assert np.isfinite(fill(values, gaps((0, 1), (50, 51), (99, 100)), TIMES, rest)).all()


def test_nothing_missing_changes_nothing():
    values = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    assert (fill(values, gaps(), TIMES) == values).all()


class Counting:
    """Sees a face in every picture whose first pixel is bright."""

    def __init__(self, place=30):
        self.looks, self.place = 0, place

    def detect(self, picture, *, thorough=True):
        self.looks += 1
        return [SimpleNamespace(landmarks=np.full((478, 3), self.place, np.float32))] if picture[0, 0, 0] > 100 else []

    def track(self, picture, previous):
        return next(iter(self.detect(picture)), None)


def test_pictures_between_are_looked_at_only_where_something_happened():
    """One dark picture between two that are looked at: it changes much at once, so all are."""
    steady = [np.full((64, 64, 3), 200, np.uint8)] * 21
    landmarker = Counting()
    watch = FaceWatch(landmarker, 5)
    for picture in steady:
        watch.see(picture)
    watch.judge()
    assert bytes(watch.present) == b"\1" * 21
    assert landmarker.looks == 5
    steady[8] = np.zeros((64, 64, 3), np.uint8)
    watch = FaceWatch(Counting(), 5)
    for picture in steady:
        watch.see(picture)
    watch.judge()
    assert [i for i, shown in enumerate(watch.present) if not shown] == [8]


def test_a_face_that_is_half_out_of_the_picture_does_not_drive():
    for place, shown in ((30, True), (-3, False), (70, False)):
        watch = FaceWatch(Counting(place))
        assert (watch.see(np.full((64, 64, 3), 200, np.uint8)) is not None) == shown


def test_only_three_words_are_known():
    assert [check_on_missing(word) for word in ("hold", "rest", "error")] == ["hold", "rest", "error"]
    with pytest.raises(InputError, match="--on-missing is 'skip': must be hold, rest, error"):
        check_on_missing("skip")
