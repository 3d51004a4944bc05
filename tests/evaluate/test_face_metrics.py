import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dagan.evaluate import face_metrics as fm
from dagan.evaluate import metrics

POINTS = np.random.default_rng(0).normal(size=(14, 3)) * [40, 50, 20] + [128, 120, 0]


@pytest.mark.parametrize(("axis", "degrees"), [("y", 12.0), ("x", -20.0), ("z", 35.0)])
def test_head_pose_error_of_one_turn(axis: str, degrees: float) -> None:
    turned = 1.3 * Rotation.from_euler(axis, degrees, degrees=True).apply(POINTS) + [10, -5, 3]
    assert fm.head_pose_error(POINTS, turned) == pytest.approx(abs(degrees) / np.sqrt(3), abs=1e-6)


def test_head_pose_error_of_yaw_pitch_and_roll() -> None:
    turned = Rotation.from_euler("YXZ", [10, 20, -5], degrees=True).apply(POINTS)
    assert fm.head_pose_error(POINTS, turned) == pytest.approx(np.sqrt((100 + 400 + 25) / 3))


def test_expression_agreement_counts_movements_on_or_off() -> None:
    a = np.array([0.0, 0.24, 0.25, 0.9])
    b = np.array([0.2, 0.26, 0.25, 0.0])
    assert fm.expression_agreement(a, b) == 0.5


def test_expression_correlation_is_the_mean_of_numpys() -> None:
    rng = np.random.default_rng(1)
    driving, result = rng.random((20, 4)), rng.random((20, 4))
    driving[:, 3] = 0.3  # not made: left out
    result[:, 2] = 0.1  # made by the driving face alone: 0
    expected = np.mean([np.corrcoef(driving[:, i], result[:, i])[0, 1] for i in (0, 1)] + [0.0])
    assert fm.expression_correlation(result, driving) == pytest.approx(expected)
    assert fm.expression_correlation(driving, driving) == pytest.approx(1)
    assert fm.expression_correlation(np.full_like(driving, 0.2), driving) == 0
    assert fm.expression_correlation(result[:4], driving[:4]) is None
    assert fm.expression_correlation(result, np.full_like(driving, 0.5)) is None


def face_looking(side: float, down: float, roll: float = 0.0) -> np.ndarray:
    """Mesh whose eyes are 30 wide and whose irises lie off the middle by the sine of two angles on an eyeball of radius 12."""
    landmarks = np.zeros((478, 3))
    for first, second, iris, x in ((33, 133, 468, 0.0), (362, 263, 473, 70.0)):
        landmarks[first, :2], landmarks[second, :2] = [x, 50], [x + 30, 50]
        landmarks[iris, :2] = [x + 15 + 12 * np.sin(np.radians(side)), 50 + 12 * np.sin(np.radians(down))]
    turn = Rotation.from_euler("z", roll, degrees=True)
    return turn.apply(landmarks)


def test_gaze_error_is_the_angle_of_the_eyes() -> None:
    ahead = face_looking(0, 0)
    assert fm.gaze(ahead).tolist() == [0, 0, 1]
    assert fm.gaze_error(ahead, face_looking(20, 0)) == pytest.approx(20, abs=1e-6)
    assert fm.gaze_error(face_looking(0, -10), face_looking(0, 15)) == pytest.approx(25, abs=1e-6)
    assert fm.gaze_error(face_looking(20, 0), face_looking(20, 0, roll=30)) == pytest.approx(0, abs=1e-4)  # the head's turn is left aside


def texture(shift: int) -> np.ndarray:
    y, x = np.mgrid[:128, :128].astype(np.float32)
    x = x - shift
    return (128 + 60 * np.sin(x / 5) * np.cos(y / 6) + 40 * np.sin((x + 2 * y) / 9)).astype(np.float32)


def test_flow_finds_a_shift_and_warping_undoes_it() -> None:
    before, after = texture(0), texture(2)
    motion = metrics.flow(before, after)
    inner = (slice(None), slice(16, -16), slice(16, -16))
    assert np.median(motion[inner][1]) == pytest.approx(-2, abs=0.1)
    assert np.median(motion[inner][0]) == pytest.approx(0, abs=0.1)
    unmoved = metrics.warp_error(before, after, np.zeros_like(motion))
    assert unmoved == pytest.approx(np.abs(before - after).mean(), rel=1e-4)
    assert metrics.warp_error(before, after, motion) < 0.15 * unmoved


def test_background_deviation_is_numpys_outside_the_head() -> None:
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 255, (7, 64, 64, 3), dtype=np.uint8)
    landmarks = np.array([[28.0, 20.0], [36.0, 30.0]])  # enlarged: x 24.8 to 39.2, y 16 to 34; below 30 all columns
    background = metrics.Background(64)
    for frame in frames:
        background.add(frame, [landmarks])
    outside = np.ones((64, 64), bool)
    outside[30:] = False
    outside[16:34, 25:39] = False
    luma = frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    assert background.deviation() == pytest.approx(luma.std(0)[outside].mean(), rel=1e-6)


def test_background_needs_two_frames_and_a_pixel() -> None:
    background = metrics.Background(32)
    picture = np.zeros((32, 32, 3), np.uint8)
    background.add(picture, [])
    assert background.deviation() is None
    background.add(picture, [])
    assert background.deviation() == 0
    full = metrics.Background(32)
    for _ in range(3):
        full.add(picture, [np.array([[0.0, 0.0], [32.0, 32.0]])])
    assert full.deviation() is None
