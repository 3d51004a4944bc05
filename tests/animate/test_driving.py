"""The motion of a video's frames, and the choice of the reference among them."""

from fractions import Fraction

import numpy as np
import pytest

from dagan.animate.driving import MotionReader, frame_spans, is_motion_file, refuse_photo
from dagan.errors import InputError
from dagan.inference.engine import Engine
from dagan.media.faces import FaceFinder
from dagan.media.landmarks import Face
from dagan.media.mesh_points import BLENDSHAPE_NAMES
from dagan.media.reader import Frame
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
        points = np.random.default_rng(0).normal(size=(478, 3)) @ rotation
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
    return Engine(tiny_model(), batch_size=4)


def test_the_motion_is_what_the_engine_finds(engine):
    pictures = moving_pictures(6)
    motion = MotionReader(engine, Clip, None).read(frames(pictures), None)
    assert motion.value == pytest.approx(engine.keypoints(pictures).value.numpy(), abs=1e-5)
    assert motion.jacobian == pytest.approx(engine.keypoints(pictures).jacobian.numpy(), abs=1e-5)
    assert motion.times == tuple(Fraction(i, 25) for i in range(7))
    assert (motion.reference, motion.model, motion.image_size, motion.detector) == (0, "tiny-64", 64, engine.detector_digest)
    assert list(frame_spans(motion)) == [(Fraction(i, 25), Fraction(1, 25)) for i in range(6)]


def test_the_head_held_like_the_source_is_the_reference(engine):
    landmarker = Landmarker()
    reader = MotionReader(engine, Clip, FaceFinder(landmarker))
    turns = [60, 0, 1, 50, 0, 1, 33, 1, 1, 45]  # every third is looked at: 60, 50, 33, 45
    assert reader.read(frames(map(marked, turns)), marked(35)).reference == 6
    assert landmarker.seen == 5
    assert reader.read(frames(map(marked, turns)), marked(48)).reference == 3
    assert reader.read(frames(map(marked, turns)), marked(90)).reference == 0


def test_where_no_face_is_seen_the_keypoints_decide(engine):
    """A source that shows no face, and frames that show none: then the same as without a landmarker."""
    pictures = moving_pictures(6)
    for picture in pictures:
        picture[0, 0] = 0
    for finder in (FaceFinder(Landmarker()), None):
        assert MotionReader(engine, Clip, finder).read(frames(pictures), pictures[4]).reference == 4
    seen = pictures[4].copy()
    seen[0, 0] = 30
    motion = MotionReader(engine, Clip, FaceFinder(Landmarker())).read(frames(pictures), seen)
    assert motion.reference == MotionReader(engine, Clip, None).read(frames(pictures), seen).reference


def test_what_cannot_work_is_said(engine):
    with pytest.raises(InputError, match="no frame could be read"):
        MotionReader(engine, Clip, None).read(iter(()), None)
    broken = tiny_model()
    broken.keypoint_detector.heatmap.bias.data[0] = float("nan")
    with pytest.raises(InputError, match="no finite keypoints in clip: try --precision float32"):
        MotionReader(Engine(broken), Clip, None).read(frames(moving_pictures(2)), None)


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
