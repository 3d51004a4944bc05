import numpy as np
import pytest

from dagan.evaluate.face_metrics import KEPT, expression_metrics, expression_totals
from dagan.evaluate.records import PairScores


def scores(driven: np.ndarray, drawn: np.ndarray) -> PairScores:
    rows = tuple(tuple(row) for row in np.concatenate([driven, drawn], axis=1).tolist())
    return PairScores(pair="a--b", source="a", driving="b", method="m", expressions=rows)


def moves(count: int = 400) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, KEPT))


def test_a_perfect_result_moves_as_far_as_it_is_driven() -> None:
    found = expression_totals([scores(moves(), moves())])
    assert found == pytest.approx(dict.fromkeys(found, 1.0))
    assert set(found) == {metric.key for metric in expression_metrics("a mesh")}


def test_each_movement_has_its_own_slope() -> None:
    driven = moves()
    drawn = driven * [0.8, 0.7, 0.3, 0.2, 0.2]  # mouth, smile, eyes, gaze across and up
    found = expression_totals([scores(driven[:150], drawn[:150]), scores(driven[150:], drawn[150:])])
    slopes = {key: found[f"{key}_slope"] for key in ("mouth", "smile", "eyes", "gaze")}
    assert slopes == pytest.approx({"mouth": 0.8, "smile": 0.7, "eyes": 0.3, "gaze": 0.2})
    assert found["eyes_correlation"] == pytest.approx(1)


def test_noise_lowers_the_correlation_and_saturation_the_strongest_tenth() -> None:
    driven = moves()
    noise = np.random.default_rng(1).normal(size=driven.shape)
    assert expression_totals([scores(driven, driven + noise)])["mouth_correlation"] == pytest.approx(0.71, abs=0.05)
    found = expression_totals([scores(driven, driven.clip(-1, 1))])
    assert found["mouth_strongest"] < found["mouth_slope"] - 0.1


def test_a_copy_does_not_move_and_few_frames_say_nothing() -> None:
    found = expression_totals([scores(moves(), 0 * moves())])
    assert found["mouth_slope"] == 0
    assert "mouth_correlation" not in found
    assert expression_totals([scores(moves(9), moves(9))]) == {}
    assert expression_totals([]) == {}
