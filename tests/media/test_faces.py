"""What the face finder answers."""

import numpy as np
import pytest

from dagan.errors import InputError
from dagan.media.framing import FaceBox, largest_face


def test_landmarks_are_handed_on(finder, astronaut):
    (face,) = finder.find_faces(astronaut)
    assert face.box == pytest.approx((180, 70, 271, 179), abs=12)
    assert face.landmarks.shape == (478, 3)


def test_largest_face():
    faces = [FaceBox((0, 0, 10, 20), 1.0, np.zeros((478, 3), np.float32)), FaceBox((0, 0, 5, 5), 1.0, np.zeros((478, 3), np.float32))]
    assert largest_face(faces, "a.png") is faces[0]
    assert (faces[0].height, faces[0].area) == (20, 200)
    with pytest.raises(InputError, match=r"no face found in a\.png: "):
        largest_face([], "a.png")
