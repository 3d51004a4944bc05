"""Where the model looks: the face with a finder, the middle without."""

from fractions import Fraction

import numpy as np
import pytest

from dagan.errors import InputError
from dagan.media.framing import Framing, middle
from dagan.media.video import open_video
from dagan.media.view import read_view, view_still, view_video
from dagan.progress import silent
from faces_seen import seen
from running_samples import moving_pictures, write_clip


class Finder:
    """Sees one face at a fixed place, in share of the picture's width; none where `box` is None."""

    def __init__(self, box):
        self.box, self.calls = box, 0

    def follow_face(self, image, previous):
        return None

    def find_faces(self, image, *, thorough=True):
        self.calls += 1
        width = image.shape[1]
        return [] if self.box is None else [seen(tuple(width * part for part in self.box))]


FACE = Finder((0.5, 0.1, 0.6, 0.22))


def test_the_middle_lies_on_whole_pixels():
    assert middle(96, 64) == Framing(48, 32, 64)
    assert middle(65, 64).bounds == (0, 0, 64, 64)
    assert middle(30, 75).bounds == (0, 22, 30, 52)


def test_a_still_is_framed_round_its_face_or_in_the_middle():
    image = moving_pictures(1, 200, 100)[0]
    assert view_still(image, None, "it", print) == middle(200, 100)
    framing = view_still(image, FACE, "it", print)
    left, top, right, bottom = framing.bounds
    assert left <= 100 < 120 <= right
    assert top <= 20 < 44 <= bottom
    assert framing.side < 60
    with pytest.raises(InputError, match="no face found in it"):
        view_still(image, Finder(None), "it", print)


def test_a_video_is_looked_through_once_and_told_of(tmp_path):
    told = []
    finder = Finder(FACE.box)
    with open_video(write_clip(tmp_path / "a.mp4", moving_pictures(23, 200, 100))) as reader:
        view, report = view_video(reader, finder, print, lambda *step: told.append(step), "looking")
        assert (report.missing, report.several, report.frames, report.shots) == (0, 0, finder.calls, 1)
        assert told[0] == ("looking", 1, 23)
        assert told[-1] == ("looking", 23, 23)
        assert len(told) == 24
        assert finder.calls <= 6
        frames = list(read_view(reader, view, 64))
        assert [frame.time for frame, _ in frames] == [Fraction(i, 25) for i in range(23)]
        assert all(picture.shape == (64, 64, 3) for _, picture in frames)
        assert np.abs(frames[3][1].astype(int) - frames[3][0].image[:64, 68:132]).mean() > 5


def test_without_a_finder_the_middle_is_cut_out_exactly(tmp_path):
    with open_video(write_clip(tmp_path / "a.mp4", moving_pictures(3, 96, 64))) as reader:
        view, report = view_video(reader, None, print, silent, "looking")
        assert report is None
        for frame, picture in read_view(reader, view, 64):
            assert (picture == frame.image[:, 16:80]).all()


def test_a_video_without_a_face_is_refused(tmp_path):
    with open_video(write_clip(tmp_path / "a.mp4", moving_pictures(3))) as reader, pytest.raises(InputError, match="no face found"):
        view_video(reader, Finder(None), print, silent, "looking")
