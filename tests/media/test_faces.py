"""Which finder is chosen, and what each answers."""

import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from dagan.errors import InputError
from dagan.media.faces import CascadeFinder, FaceBox, LandmarkFinder, largest_face, open_face_finder


def test_cascade_finds_the_astronaut(cascade, astronaut):
    (face,) = cascade.find_faces(astronaut)
    assert face.landmarks is None
    assert face.box == pytest.approx((180, 70, 271, 179), abs=12)
    assert all(type(value) is float for value in face.box)


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.5])
def test_cascade_at_other_sizes(cascade, astronaut, scale):
    side = round(512 * scale)
    (face,) = cascade.find_faces(np.asarray(Image.fromarray(astronaut).resize((side, side))))
    assert face.box == pytest.approx(np.array((180, 70, 271, 179)) * scale, abs=14 * scale)


def test_cascade_looks_closer_only_when_it_may(cascade, astronaut):
    scene = np.full((768, 1024, 3), 110, np.uint8)
    scene[300:650, 500:850] = np.asarray(Image.fromarray(astronaut).resize((350, 350)))
    assert cascade.find_faces(scene, thorough=False) == []
    (face,) = cascade.find_faces(scene)
    assert (face.box[0] + face.box[2]) / 2 == pytest.approx(500 + 226 * 350 / 512, abs=12)


def test_cascade_on_nothing(cascade):
    for image in (np.zeros((200, 300, 3), np.uint8), np.zeros((16, 16, 3), np.uint8), np.full((20, 600, 3), 200, np.uint8)):
        assert cascade.find_faces(image) == []


def test_cascade_gives_one_box_a_face_largest_first(cascade, astronaut):
    small = np.full_like(astronaut, 110)
    small[80:464, 64:448] = np.asarray(Image.fromarray(astronaut).resize((384, 384)))
    faces = cascade.find_faces(np.concatenate([small[:, 60:450], astronaut[:, 60:450]], axis=1)[40:430])
    assert len(faces) == 2
    assert faces[0].area > faces[1].area
    assert faces[0].box[0] > 390 > faces[1].box[2]


def test_without_the_bundle_the_cascade_takes_over_with_one_line():
    said = []
    assert isinstance(open_face_finder(download=False, warn=said.append), CascadeFinder)
    assert len(said) == 1
    assert "simpler method" in said[0]


def test_without_the_library_the_cascade_takes_over_with_one_line(monkeypatch, tmp_path, bundle):
    """Also where the bundle is at hand; a stand-in for it serves as well, the import fails first."""
    path = bundle or tmp_path / "b.task"
    if bundle is None:
        with zipfile.ZipFile(path, "w") as file:
            for part in ("face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite"):
                file.writestr(part, part)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    said = []
    finder = open_face_finder(path, warn=said.append)
    assert isinstance(finder, CascadeFinder)
    assert "ai-edge-litert" in said[-1]


def test_named_bundle_that_is_none_is_an_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_face_finder(tmp_path / "none.task")


def test_landmarks_are_handed_on(finder, astronaut):
    (face,) = finder.find_faces(astronaut)
    assert face.box == pytest.approx((180, 70, 271, 179), abs=12)
    assert (face.landmarks is not None) == isinstance(finder, LandmarkFinder)


def test_largest_face():
    faces = [FaceBox((0, 0, 10, 20), 1.0), FaceBox((0, 0, 5, 5), 1.0)]
    assert largest_face(faces, "a.png") is faces[0]
    assert (faces[0].height, faces[0].area) == (20, 200)
    with pytest.raises(InputError, match=r"no face found in a\.png: "):
        largest_face([], "a.png")
