import numpy as np
import pytest

from dagan.media.landmarks import EXPRESSIONS, expressions

# Places of a face 200 high, looking straight, x to the right and y down.
FACE = {
    10: (0, -100), 152: (0, 100), 1: (0, 0), 234: (-70, 0), 454: (70, 0), 13: (0, 45), 14: (0, 50), 61: (-25, 47), 291: (25, 47),
    33: (-50, -30), 133: (-20, -30), 362: (20, -30), 263: (50, -30), 159: (-35, -35), 145: (-35, -25), 386: (35, -35), 374: (35, -25),
    468: (-35, -30), 473: (35, -30),
}  # fmt: skip


def measured(face: dict[int, tuple[float, float]], scale: float = 1.0, shift: float = 0.0, turn: float = 0.0) -> dict[str, float]:
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    found = expressions(lambda point: (scale * turned @ np.array(face[point], float) + shift)[None])
    return dict(zip(EXPRESSIONS, found[0].tolist(), strict=True))


def test_what_each_number_is() -> None:
    found = measured(FACE)
    assert found == pytest.approx(
        {"mouth": 5 / 200, "smile": 50 / 200, "eyes": 10 / 30, "gaze across": 0, "gaze up": 0, "turn": 0, "nod": 0}, abs=1e-6
    )
    assert measured(FACE | {14: (0, 65)})["mouth"] == pytest.approx(0.1)
    assert measured(FACE | {159: (-35, -26), 386: (35, -26)})["eyes"] == pytest.approx(1 / 30)
    right = measured(FACE | {468: (-32, -30), 473: (38, -30)})
    assert (right["gaze across"], right["gaze up"]) == pytest.approx((0.1, 0), abs=1e-6)
    assert measured(FACE | {468: (-35, -33), 473: (35, -33)})["gaze up"] == pytest.approx(0.1)
    assert measured(FACE | {1: (20, 0)})["turn"] == pytest.approx(40 / 200)
    assert measured(FACE | {1: (0, 10)})["nod"] == pytest.approx(20 / 200)


def test_place_size_and_roll_of_the_head_do_not_matter() -> None:
    assert measured(FACE, scale=0.01, shift=3.0, turn=0.4) == pytest.approx(measured(FACE), abs=1e-5)
