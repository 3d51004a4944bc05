"""What is refused of uploads, each with one sentence that names the upload as its owner does."""

from dataclasses import replace

import pytest

from bad_uploads import BAD, LIMITS, PHOTO, huge_picture
from dagan.app.uploads import UploadLimits, check_driving, check_photo
from dagan.errors import InputError
from dagan.examples import PORTRAIT
from dagan.motion.file import MOTION_SUFFIXES
from running_samples import moving_pictures, write_clip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_uploads_get_one_sentence(bad, tmp_path):
    path = tmp_path / bad.name
    bad.write(path)
    with pytest.raises(InputError, match=bad.why) as error:
        (check_photo if bad.field == PHOTO else check_driving)(path, LIMITS)
    sentence = str(error.value)
    assert sentence.startswith(bad.name)
    assert str(tmp_path) not in sentence
    assert "\n" not in sentence


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(tmp_path):
    huge_picture(tmp_path / "bomb.png", 14_500)
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    for limits in (LIMITS, UploadLimits()):
        with pytest.raises(InputError, match=r"^bomb.png has far too many pixels"):
            check_photo(tmp_path / "bomb.png", limits)


def test_good_uploads_pass(tmp_path):
    assert check_photo(PORTRAIT, LIMITS).shape == (512, 512, 3)
    check_driving(write_clip(tmp_path / "clip.mp4", moving_pictures(5)), LIMITS)


@pytest.mark.parametrize(
    ("limits", "why"),
    [({"video_frames": 4}, "5 frames"), ({"video_seconds": 0.1}, "5 frames in 0 seconds"), ({"video_side": 60}, "64 x 64")],
)
def test_videos_are_measured_before_they_are_decoded(limits, why, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", moving_pictures(5))
    monkeypatch.setattr("dagan.app.uploads.open_video", lambda path: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match=why):
        check_driving(clip, replace(LIMITS, **limits))


def test_motion_files_are_no_videos_and_what_is_gone_is_said(tmp_path, samples):
    for check in (check_driving, check_photo):
        with pytest.raises(InputError, match=f"short{MOTION_SUFFIXES[0]} is"):
            check(samples / "short.motion", LIMITS)
        with pytest.raises(InputError, match="upload it again"):
            check(tmp_path / "gone.png", LIMITS)
