"""The motion of a video's frames, and the choice of the reference among them."""

from fractions import Fraction

import numpy as np
import pytest

from dagan.animate.driving import MotionReader, frame_spans, is_motion_file, refuse_photo
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.media.container import Frame
from dagan.media.landmarks import BLENDSHAPE_NAMES, Face
from running_samples import moving_pictures, tiny_model


class Clip:
    """What is asked of a reader."""

    path, rate, time_base, frame_count = "clip", Fraction(25), Fraction(1, 25), 20


class Landmarker:
    """Sees in each picture a face that is turned by the grey of its first pixel, in degrees; none in black ones."""

    def __init__(self):
        self.seen = 0

    def detect(self, picture, *, thorough):
        self.seen += 1
        degrees = int(picture[0, 0, 0])
        if degrees == 0:
            return []
        a = np.radians(degrees)
        rotation = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
        points = 5 * np.random.default_rng(0).normal(size=(478, 3)) @ rotation + 32
        return [Face((0.0, 0.0, 1.0, 1.0), points, 1.0, lambda _: np.zeros(len(BLENDSHAPE_NAMES)))]

    def track(self, picture, previous):
        faces = self.detect(picture, thorough=False)
        return faces[0] if faces else None


def marked(degrees):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[0, 0] = degrees
    return picture


def frames(pictures):
    for i, picture in enumerate(pictures):
        yield Frame(picture, Fraction(i, 25), i, Fraction(1, 25)), picture


@pytest.fixture(scope="module")
def engine():
    return TorchEngine(tiny_model(), batch_size=4)


def test_the_motion_is_what_the_engine_finds(engine):
    pictures = moving_pictures(6)
    motion = MotionReader(engine, Clip, None).read(frames(pictures), pictures[0], reference=0)
    assert motion.value == pytest.approx(engine.keypoints(pictures).value.numpy(), abs=1e-5)
    assert motion.jacobian == pytest.approx(engine.keypoints(pictures).jacobian.numpy(), abs=1e-5)
    assert motion.times == tuple(Fraction(i, 25) for i in range(7))
    assert (motion.reference, motion.model, motion.image_size, motion.detector) == (0, "tiny-64", 64, engine.detector_digest)
    assert list(frame_spans(motion)) == [(Fraction(i, 25), Fraction(1, 25)) for i in range(6)]


def test_the_head_held_like_the_source_is_the_reference(engine):
    landmarker = Landmarker()
    reader = MotionReader(engine, Clip, landmarker)
    turns = [60, 0, 1, 50, 0, 1, 33, 1, 1, 45]  # every third is looked at: 60, 50, 33, 45
    assert reader.read(frames(map(marked, turns)), marked(35)).reference == 6
    assert landmarker.seen == 5
    assert reader.read(frames(map(marked, turns)), marked(48)).reference == 3
    assert reader.read(frames(map(marked, turns)), marked(90)).reference == 0


def test_where_no_face_is_seen_the_keypoints_decide(engine):
    """A source that shows no face: then the same as without a landmarker, and no frame is said to lack one."""
    pictures = moving_pictures(6)
    for picture in pictures:
        picture[0, 0] = 0
    for landmarker in (Landmarker(), None):
        reader = MotionReader(engine, Clip, landmarker)
        assert reader.read(frames(pictures), pictures[4]).reference == 4
        assert reader.missing == 0


def test_frames_without_a_face_neither_drive_nor_are_the_reference(engine):
    """Grey 0 is no face; between two looked-at frames with a face the others are taken to have one, so it comes in threes."""
    turns = [0, 0, 0, 0, 40, 60, 60, 50, 50, 50, 50, 0, 0, 0, 0, 0, 50]
    pictures = [np.full((64, 64, 3), 3 * i, np.uint8) for i in range(len(turns))]
    for picture, degrees in zip(pictures, turns, strict=True):
        picture[0, 0] = degrees
    reader = MotionReader(engine, Clip, Landmarker())
    held = reader.read(frames(pictures), marked(35))
    assert reader.missing == 9
    assert held.reference == 9
    own = engine.keypoints(pictures).value.numpy()
    present = [bool(degrees) for degrees in turns]
    np.testing.assert_allclose(held.value[present], own[present], atol=1e-6)
    np.testing.assert_allclose(held.value[:4], np.repeat(own[4:5], 4, 0), atol=1e-6)
    between = held.value[11:16]
    assert (between >= np.minimum(own[10], own[16]) - 1e-6).all()
    assert (between <= np.maximum(own[10], own[16]) + 1e-6).all()
    rested = MotionReader(engine, Clip, Landmarker()).read(frames(pictures), marked(35), on_missing="rest")
    np.testing.assert_allclose(rested.value[0], own[9], atol=1e-6)
    assert MotionReader(engine, Clip, Landmarker()).read(frames(pictures), marked(35), reference=0).reference == 4
    with pytest.raises(InputError, match=r"--reference 12: this frame of clip shows no face; the nearest that does is 10"):
        MotionReader(engine, Clip, Landmarker()).read(frames(pictures), marked(35), reference=12)
    with pytest.raises(InputError, match=r"clip shows no face at 0\.00 s \(frame 0\)"):
        MotionReader(engine, Clip, Landmarker()).read(frames(pictures), marked(35), on_missing="error")
    with pytest.raises(InputError, match=r"clip shows no face at 0\.28 s \(frame 7\)"):
        MotionReader(engine, Clip, Landmarker()).read(frames(pictures[4:]), marked(35), on_missing="error")
    with pytest.raises(InputError, match="none of its 4 frames shows one"):
        MotionReader(engine, Clip, Landmarker()).read(frames(pictures[:4]), marked(35))


def test_what_cannot_work_is_said(engine):
    with pytest.raises(InputError, match="no frame could be read"):
        MotionReader(engine, Clip, None).read(iter(()), marked(0))
    broken = tiny_model()
    broken.keypoint_detector.heatmap.bias.data[0] = float("nan")
    with pytest.raises(InputError, match="no finite keypoints in clip: try --precision float32"):
        MotionReader(TorchEngine(broken), Clip, None).read(frames(moving_pictures(2)), marked(0))


def test_kinds_of_files_are_told_apart(tmp_path):
    from PIL import Image

    pictures = [Image.fromarray(picture) for picture in moving_pictures(3)]
    pictures[0].save(tmp_path / "a.jpg")
    pictures[0].save(tmp_path / "still.data", format="gif")
    pictures[0].save(tmp_path / "moving.gif", save_all=True, append_images=pictures[1:])
    (tmp_path / "b.mp4").write_bytes(b"something")
    for name in ("a.jpg", "still.data"):
        with pytest.raises(InputError, match="is a photo"):
            refuse_photo(tmp_path / name)
    for name in ("moving.gif", "b.mp4", "missing.jpg", "."):
        refuse_photo(tmp_path / name)
    assert is_motion_file(tmp_path / "a.MOTION")
    assert not is_motion_file(tmp_path / "a.mp4")
