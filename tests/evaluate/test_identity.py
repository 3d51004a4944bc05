"""Alignment for identity networks and the other face metrics on a real face.

No recognition network ships, so one that hands on what it is given stands for it: its embeddings are the aligned pictures.
"""

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from dagan.errors import InputError
from dagan.evaluate import face_metrics as fm
from dagan.evaluate.face_metrics import Landmarks, Watcher
from dagan.media.face_networks import IdentityNetwork
from onnx_networks import onnx_flattening, onnx_scaling


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Watcher:
    network = onnx_flattening(tmp_path_factory.mktemp("network") / "flat.onnx")
    return Watcher(Landmarks(), IdentityNetwork(network))


def test_a_person_stays_herself_under_changes_of_the_picture(watcher: Watcher) -> None:
    picture = np.ascontiguousarray(astronaut()[:300, 80:380])
    seen = watcher.see(picture)
    assert seen is not None
    changed = {
        "mirrored": np.ascontiguousarray(picture[:, ::-1]),
        "dark": (picture * 0.6).astype(np.uint8),
        "small": np.asarray(Image.fromarray(picture).resize((128, 128), Image.Resampling.BICUBIC)),
        "turned": np.asarray(Image.fromarray(picture).rotate(12, Image.Resampling.BICUBIC)),
    }
    for name, other in changed.items():
        found = watcher.see(other)
        assert found is not None
        assert np.corrcoef(seen.identity.ravel(), found.identity.ravel())[0, 1] > (0.4 if name == "mirrored" else 0.9), name
    turned = watcher.see(changed["turned"])
    assert fm.head_pose_error(seen.pose.rigid, turned.pose.rigid) == pytest.approx(12 / np.sqrt(3), abs=1)
    assert fm.gaze_error(seen.landmarks, turned.landmarks) < 5
    assert fm.expression_agreement(seen.pose.expression, turned.pose.expression) > 0.9
    assert np.linalg.norm(seen.identity) == pytest.approx(1, abs=1e-5)


def test_no_face_in_a_plain_picture(watcher: Watcher) -> None:
    assert watcher.see(np.full((128, 128, 3), 90, np.uint8)) is None


def test_networks_that_give_no_vector_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"does not turn a picture into one vector, but into \[\(1, 3, 112, 112\)\]"):
        IdentityNetwork(onnx_scaling(tmp_path / "a.onnx", 1.0))
    with pytest.raises(InputError, match="does not take 1 x 3 x 112 x 112 pictures"):
        IdentityNetwork(onnx_scaling(tmp_path / "b.onnx", 1.0, 64))
    face = np.zeros((128, 128, 3), np.uint8)
    face[40:80, 40:90] = 200
    landmarks = np.random.default_rng(0).uniform(20, 100, (478, 3))
    vector = IdentityNetwork(onnx_flattening(tmp_path / "c.onnx")).embed(face, landmarks)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
