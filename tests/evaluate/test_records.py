import json
from pathlib import Path

import pytest

from dagan.errors import InputError
from dagan.evaluate.records import Evaluation, Metric, PairScores, load, save

RUN = Evaluation(
    protocol="cross-identity",
    metrics=(Metric(key="csim", title="CSIM", better="higher", range="-1 to 1", tool="a network"),),
    methods=("ours", "copy"),
    scores=(
        PairScores(
            pair="a--b", source="a.mp4", driving="b.mp4", method="ours", source_frame=3, frames=(0, 5), values={"csim": (1 / 3, None)},
            missing={"result": 1}, rotation=(12.5, None), problem="shorter than its clip",
        ),
        PairScores(pair="a--b", source="a.mp4", driving="b.mp4", method="copy"),
    ),
    settings={"every": "5"}, totals={"ours": {"fid": 0.1 + 0.2}}, pictures={"ours": {"a--b": "pictures/x.jpg"}},
)  # fmt: skip


def test_a_run_comes_back_exactly(tmp_path: Path) -> None:
    save(tmp_path / "r.json", RUN)
    assert load(tmp_path / "r.json") == RUN


def test_fields_of_a_report_are_left_aside(tmp_path: Path) -> None:
    save(tmp_path / "r.json", RUN)
    content = json.loads((tmp_path / "r.json").read_text())
    content["statistics"] = {"mean": 1}
    (tmp_path / "r.json").write_text(json.dumps(content))
    assert load(tmp_path / "r.json") == RUN


@pytest.mark.parametrize("content", ["{", "[]", '{"protocol": "reconstruction"}', '{"metrics": [{}], "scores": [], "methods": []}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match="no evaluation that can be read"):
        load(tmp_path / "r.json")
