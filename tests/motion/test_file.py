"""Motion files: what goes in comes out, and whatever does not fit is named in one sentence."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dagan.animate.driving import check_fit
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.motion.file import DrivingMotion, read_motion, save_motion
from dagan.weights import save_model
from running_samples import TINY, tiny_model


@pytest.fixture
def motion():
    rng = np.random.default_rng(0)
    # A third of a second, and a tick that no float holds: times must come back exactly.
    times = (Fraction(0), Fraction(1, 3), Fraction(1001, 1500), Fraction(7, 3))
    return DrivingMotion(
        value=rng.uniform(-1, 1, (3, 6, 2)).astype(np.float32),
        jacobian=rng.normal(size=(3, 6, 2, 2)).astype(np.float32),
        times=times, rate=Fraction(30000, 1001), time_base=Fraction(1, 30000), reference=2,
        model="tiny-64", detector="0" * 64, image_size=64,
    )  # fmt: skip


def test_a_motion_file_holds_everything_exactly(tmp_path, motion):
    for name in ("a.motion", "b.safetensors"):
        save_motion(tmp_path / name, motion)
        back = read_motion(tmp_path / name)
        assert (back.value == motion.value).all()
        assert (back.jacobian == motion.jacobian).all()
        assert replace(back, value=motion.value, jacobian=motion.jacobian) == motion
        assert len(back) == 3


def test_a_motion_file_is_small(tmp_path):
    frames, points = 250, 15
    motion = DrivingMotion(
        value=np.zeros((frames, points, 2), np.float32), jacobian=np.zeros((frames, points, 2, 2), np.float32),
        times=tuple(Fraction(i, 25) for i in range(frames + 1)), rate=Fraction(25), time_base=Fraction(1, 25), reference=0,
        model="m", detector="d", image_size=256,
    )  # fmt: skip
    save_motion(tmp_path / "a.motion", motion)
    assert (tmp_path / "a.motion").stat().st_size < 400 * frames


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"times": (Fraction(0), Fraction(1), Fraction(1), Fraction(2))}, "do not increase"),
        ({"times": (Fraction(0), Fraction(1))}, "one more than frames"),
        ({"reference": 3}, "reference frame 3"),
        ({"reference": -1}, "reference frame -1"),
        ({"rate": Fraction(0)}, "above 0"),
        ({"value": np.full((3, 6, 2), np.nan, np.float32)}, "not finite"),
        ({"jacobian": np.zeros((3, 6, 2), np.float32)}, "Jacobians"),
        ({"value": np.zeros((0, 6, 2), np.float32)}, "at least one frame"),
    ],
)
def test_a_motion_that_contradicts_itself_is_refused(motion, change, words):
    with pytest.raises(InputError, match=words):
        replace(motion, **change)


def test_an_existing_file_is_kept(tmp_path, motion):
    path = tmp_path / "a.motion"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        save_motion(path, motion)
    assert path.read_text() == "mine"
    save_motion(path, motion, overwrite=True)
    assert len(read_motion(path)) == 3


def test_another_suffix_is_refused(tmp_path, motion):
    with pytest.raises(InputError, match=r"\.npz.*\.motion"):
        save_motion(tmp_path / "a.npz", motion)


def damage(path, motion, *, note=None, tensors=None, drop=None):
    """A motion file with parts of its description or its tensors replaced."""
    save_motion(path, motion)
    arrays = load_file(path) | (tensors or {})
    if drop:
        del arrays[drop]
    description = {
        "format": 1, "model": "tiny-64", "detector": "0", "image_size": 64, "rate": "25", "time_base": "1/25", "reference": 0,
    } | (note or {})  # fmt: skip
    save_file(arrays, path, metadata={"dagan.motion": json.dumps(description)})


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"note": {"format": 2}}, "format 2, this version reads 1"),
        ({"note": {"rate": "fast"}}, "damaged"),
        ({"note": {"rate": "1/0"}}, "damaged"),
        ({"note": {"reference": 9}}, "reference frame 9"),
        ({"drop": "value"}, "damaged.*value"),
        ({"tensors": {"times": np.zeros((4, 2), np.int64)}}, "damaged"),
        ({"tensors": {"times": np.arange(4)}}, "damaged"),
        ({"tensors": {"value": np.zeros(3, np.float32)}}, "damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path, motion, parts, words):
    path = tmp_path / "bad.motion"
    damage(path, motion, **parts)
    with pytest.raises(InputError, match=words) as caught:
        read_motion(path)
    assert str(path) in str(caught.value)


def test_files_of_other_kinds_are_named(tmp_path, motion):
    path = tmp_path / "a.motion"
    with pytest.raises(InputError, match="does not exist"):
        read_motion(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        read_motion(path)
    path.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(InputError, match="not a readable motion file"):
        read_motion(path)
    save_motion(path, motion, overwrite=True)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a readable motion file"):
        read_motion(path)
    save_model(tmp_path / "model.safetensors", tiny_model())
    with pytest.raises(InputError, match="is a model file, not a motion file"):
        read_motion(tmp_path / "model.safetensors")


def test_a_motion_fits_the_detector_that_found_it(tmp_path, motion):
    engine = TorchEngine(tiny_model())
    path = tmp_path / "a.motion"
    assert check_fit(replace(motion, detector=engine.detector_digest), engine, path) is None
    assert "another training" in check_fit(motion, engine, path)
    with pytest.raises(InputError, match="made with model 'other'"):
        check_fit(replace(motion, model="other"), engine, path)
    five = TorchEngine(tiny_model(config=replace(TINY, name="five", keypoints=replace(TINY.keypoints, count=5))))
    with pytest.raises(InputError, match="6 keypoints a frame, model 'five' has 5"):
        check_fit(motion, five, path)


def test_the_digest_tells_detectors_apart_and_ignores_the_generator():
    model = tiny_model()
    digest = TorchEngine(model).detector_digest
    assert TorchEngine(tiny_model()).detector_digest == digest
    model.generator.decoder.final.bias.data += 1
    assert TorchEngine(model).detector_digest == digest
    model.keypoint_detector.heatmap.bias.data += 1
    assert TorchEngine(model).detector_digest != digest
    other = tiny_model()
    other.depth_network.decoder.disparity[0].conv.bias.data += 1
    assert TorchEngine(other).detector_digest != digest
