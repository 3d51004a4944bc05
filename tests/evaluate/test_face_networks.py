"""Networks of the user's: 68 landmarks read from heatmaps, and action units. Those here find the brightest place, and tell brightness."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagan.data.clips import clips_for
from dagan.errors import InputError
from dagan.evaluate.face_metrics import ACTION_UNITS, action_units
from dagan.evaluate.methods import CopySpec, ResultsSpec
from dagan.evaluate.pairs import self_pairs
from dagan.evaluate.rulers import RulerFiles, Settings
from dagan.evaluate.run import evaluate
from dagan.media.face_networks import ActionUnitNetwork, LandmarkNetwork, peaks
from dagan.media.landmarks import BLENDSHAPE_NAMES
from onnx_networks import onnx_brightness, onnx_heatmaps, onnx_scaling


def face_at(x: float, y: float, width: float = 80, height: float = 100) -> np.ndarray:
    """Mesh landmarks that fill a box."""
    landmarks = np.random.default_rng(0).random((478, 3)) * [width, height, 10] + [x, y, 0]
    landmarks[0, :2], landmarks[1, :2] = [x, y], [x + width, y + height]
    return landmarks


def test_peaks_lie_a_quarter_towards_the_higher_neighbour() -> None:
    heatmaps = np.zeros((4, 6, 8))
    heatmaps[0, 2, 3], heatmaps[0, 2, 4], heatmaps[0, 1, 3] = 1, 0.5, 0.5
    heatmaps[1, 0, 7] = 1  # in a corner
    heatmaps[2, 3, 4] = 1  # neighbours that are equal
    heatmaps[3, 5, 2], heatmaps[3, 5, 1] = 1, 0.5
    assert peaks(heatmaps).tolist() == [[3.75, 2.25], [7.5, 0.5], [4.5, 3.5], [2.25, 5.5]]


def test_heatmaps_lead_back_to_places_in_the_picture(tmp_path: Path) -> None:
    network = LandmarkNetwork(onnx_heatmaps(tmp_path / "fan.onnx"))
    image = np.zeros((200, 240, 3), np.uint8)
    image[118:122, 98:102] = 255  # round 100, 120
    for x, y in ((60, 50), (70, 60), (30, 40)):
        points = network.points(image, face_at(x, y))
        assert points.shape == (68, 2)
        # A pixel of the heatmap is 200 / 195 x (80 + 100) / 64 = 2.9 pixels wide.
        np.testing.assert_allclose(points, np.tile([100, 120], (68, 1)), atol=1.5)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: onnx_heatmaps(file, 98), "into 68 square heatmaps, but into 1 x 98 x 64 x 64: give a network of 68 landmarks"),
        (lambda file: onnx_scaling(file, 1.0), "into 68 square heatmaps, but into 1 x 3 x 256 x 256"),
        (lambda file: onnx_scaling(file, 1.0, 64), "does not take 1 x 3 x 256 x 256 pictures"),
        (lambda file: file.write_bytes(b"no network"), "is not a readable ONNX network"),
        (lambda file: None, "does not exist: give an ONNX network of 68 landmarks"),
    ],
)
def test_other_networks_are_no_68_landmarks(write, message: str, tmp_path: Path) -> None:
    write(tmp_path / "n.onnx")
    with pytest.raises(InputError, match=message):
        LandmarkNetwork(tmp_path / "n.onnx")


def test_action_units_of_a_network(tmp_path: Path) -> None:
    network = ActionUnitNetwork(onnx_brightness(tmp_path / "au.onnx"))
    assert network.side == 64
    assert network.present(np.full((128, 128, 3), 77, np.uint8), face_at(20, 20)).tolist() == [False, True, True]  # 0.3, 0.6, 0.9
    with pytest.raises(InputError, match=r"into one row of probabilities, but into \[\(1, 3, 64, 64\)\]"):
        ActionUnitNetwork(onnx_scaling(tmp_path / "b.onnx", 1.0, 64))


def test_action_units_of_blendshapes_are_on_where_either_side_is() -> None:
    names = [name for name in BLENDSHAPE_NAMES if not name.startswith("_")]
    assert {name for unit in ACTION_UNITS.values() for name in unit} <= set(names)
    strengths = np.zeros(51)
    strengths[names.index("mouthSmileRight")] = 0.25
    strengths[names.index("jawOpen")] = 0.9
    strengths[names.index("browInnerUp")] = 0.24
    assert [unit for unit, present in zip(ACTION_UNITS, action_units(strengths), strict=True) if present] == [12, 26]


def test_both_are_measured_in_a_run(dot_faces: None, tmp_path: Path) -> None:
    """Results moved by 4 pixels of 64 (16 at 256), or darkened so that another of three units is on."""
    y, x = np.mgrid[:64, :64]
    dot = np.repeat((60 + 190 * np.exp(-((x - 28) ** 2 + (y - 27) ** 2) / 8))[..., None], 3, 2).astype(np.uint8)
    results = {"true": dot, "moved": np.roll(dot, 4, 1), "dark": (dot * 0.6).astype(np.uint8)}
    for name, picture in results.items():
        (tmp_path / name / "a").mkdir(parents=True)
        for i in range(3):
            Image.fromarray(picture).save(tmp_path / name / "a" / f"{i}.png")
    pairs = self_pairs(clips_for(tmp_path / "true", 0))
    files = RulerFiles(landmarks68=onnx_heatmaps(tmp_path / "fan.onnx"), action_units=onnx_brightness(tmp_path / "au.onnx"))
    methods = [*(ResultsSpec(name, tmp_path / name) for name in ("moved", "dark")), CopySpec()]
    run = evaluate(pairs, methods, files, Settings(protocol="reconstruction", every=1, size=64))
    moved, dark, copied = (next(s for s in run.scores if s.method == name) for name in ("moved", "dark", "copy"))
    assert moved.values["akd68_network"] == pytest.approx((16, 16), abs=1)
    assert moved.values["aucon"] == (1, 1)
    assert dark.values["akd68_network"] == pytest.approx((0, 0), abs=1)
    assert dark.values["aucon"] == pytest.approx((2 / 3, 2 / 3))  # of 0.25, 0.5 and 0.75 the second one falls below 0.5
    assert copied.values["aucon"] == (1, 1)
    named = {metric.key: metric for metric in run.metrics}
    assert "fan.onnx" in named["akd68_network"].tool
    assert "au.onnx" in named["aucon"].tool
    assert {"tool landmarks68", "tool action_units"} <= set(run.settings)
    without = evaluate(pairs, methods, RulerFiles(), Settings(protocol="reconstruction", every=1, size=64))
    assert "akd68_network" not in {metric.key for metric in without.metrics}
    assert "AU 1, 2, 4, 5" in next(metric.tool for metric in without.metrics if metric.key == "aucon")
