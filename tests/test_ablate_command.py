"""`dagan ablate depth`: trains, measures, tabulates, and goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dagan.cli import app
from dagan.errors import InputError
from dagan.evaluate.ablation import AblateOptions, RunFigures, Training, ablate_depth, markdown, read_table, spread, write_tables
from dagan.synthetic.clip import synthesise
from dagan.train.loop.training import Result
from dagan.train.recipe import DepthRecipe, read_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
RUN = RunFigures(variant="a", seed=0, steps=5, minutes=0.1, settings=(), synthetic={"spearman": 0.5, "normals": 20.0}, real={})


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    synthesise(folder, 2, 64, 1, 8)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.yaml"
    recipe = json.dumps(str(RECIPES / "tiny-depth.yaml"))
    path.write_text(f"""
recipe: {recipe}
settings: [batch_size=2, log_every=1]
variants:
  - {{name: "frozen, as before", settings: [egomotion.learn_camera=false], seeds: [0, 1]}}
  - {{name: learnt}}
""")
    return path


def test_trains_measures_tabulates_and_goes_on(heads: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [
        "ablate",
        "depth",
        str(table),
        f"data.train={heads}",
        "max_steps=2",
        "-o",
        str(out),
        "--synthetic",
        str(heads),
        "--every",
        "4",
    ]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.exception
    note = json.loads((out / "ablation.json").read_text())
    assert [(r["variant"], r["seed"], r["steps"]) for r in note["runs"]] == [
        ("frozen, as before", 0, 2),
        ("frozen, as before", 1, 2),
        ("learnt", 0, 2),
    ]
    measured = note["variants"]["frozen, as before"]["synthetic/spearman"]
    each = [r["synthetic"]["spearman"] for r in note["runs"][:2]]
    assert each[0] != each[1], "seeds differ"
    assert measured["mean"] == pytest.approx(sum(each) / 2)
    assert measured["count"] == 2
    assert note["variants"]["learnt"]["synthetic/spearman"]["deviation"] is None
    # Each run is an ordinary one, made with its settings.
    card = json.loads((out / "runs" / "learnt-0" / "log.jsonl").read_text().splitlines()[-1])
    assert card["step"] == 2
    page = (out / "ablation.md").read_text()
    assert "| frozen, as before | 2 | 2 |" in page
    assert str(tmp_path) not in page, "folders of the machine stay on it"
    # Again: what is measured stays, what is missing is done.
    kept = out / "runs" / "frozen-as-before-0" / "depth.safetensors"
    stamp = kept.stat().st_mtime_ns
    (out / "figures" / "learnt-0.json").unlink()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert kept.stat().st_mtime_ns == stamp
    assert json.loads((out / "ablation.json").read_text()) | {"runs": 0} == note | {"runs": 0}
    changed = CliRunner().invoke(app, [*arguments, "optimiser.lr=1e-5"])
    assert isinstance(changed.exception, InputError)
    assert "other settings" in str(changed.exception)


def test_a_run_that_was_interrupted_is_not_measured(heads: Path, table: Path, tmp_path: Path) -> None:
    def stopped(*_: object) -> Result:
        return Result(1, tmp_path / "depth.safetensors", finished=False)

    training = Training(partial(read_recipe, DepthRecipe), stopped)
    with pytest.raises(KeyboardInterrupt):
        ablate_depth(table, [f"data.train={heads}"], AblateOptions(output=tmp_path / "out", synthetic=heads), training)
    assert not (tmp_path / "out" / "figures").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants: [{name: a}]", "recipe"),
        ("{recipe: r.yaml, variants: []}", "variants"),
        ("{recipe: r.yaml, variants: [{name: A b}, {name: a-B}]}", "differ"),
        ("{recipe: r.yaml, variants: [{name: a, seeds: []}]}", "seeds"),
        ("{recipe: r.yaml, variants: [{name: a, setings: []}]}", "settings"),
        ("{recipe: [", "YAML"),
    ],
)
def test_bad_tables_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_unusable_settings_are_refused_before_anything_runs(heads: Path, table: Path, tmp_path: Path) -> None:
    options = AblateOptions(output=tmp_path / "out", synthetic=heads)
    training = Training(partial(read_recipe, DepthRecipe), lambda *_: pytest.fail("it trains"))
    with pytest.raises(InputError, match="levels"):
        ablate_depth(table, [f"data.train={heads}", "loss.levels=9"], options, training)
    with pytest.raises(InputError, match="learnt"):
        ablate_depth(table, [], replace(options, only=("lernt",)), training)
    with pytest.raises(InputError, match="--synthetic"):
        ablate_depth(table, [], replace(options, synthetic=None), training)
    assert not (tmp_path / "out").exists()


def test_the_repository_s_table_is_usable() -> None:
    from dagan.train.recipe import DepthRecipe, read_recipe

    read = read_table(RECIPES / "ablations" / "depth.yaml")
    recipes = {v.name: read_recipe(DepthRecipe, read.recipe, [*read.settings, *v.settings]) for v in read.variants}
    released, ours = recipes["as released, frozen camera"], recipes["ours"]
    assert not released.egomotion.learn_camera
    assert ours.loss.consistency > 0
    assert released.loss.consistency == released.loss.aligned_share == released.loss.imitation == 0
    assert {r.batch_size for r in recipes.values()} == {ours.batch_size}
    assert [len(v.seeds) for v in read.variants if v.name in ("as released, frozen camera", "ours")] == [3, 3]


def test_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    runs = [RUN, replace(RUN, seed=1, synthetic={"spearman": 0.7, "normals": 22.0}), replace(RUN, variant="b", steps=9)]
    seen = spread(runs[:2], "synthetic", "spearman")
    assert seen is not None
    assert (seen.mean, seen.count) == (pytest.approx(0.6), 2)
    assert seen.deviation == pytest.approx(0.1 * 2**0.5)
    assert spread(runs, "real", "landmarker") is None
    page = markdown(runs, {"recipe": "r.yaml"})
    assert "| a | 2 | 5 | 0.600 ± 0.141 | 21.0 ± 1.4 |" in page
    assert "| b | 1 | 9 | 0.500 | 20.0 |" in page
    files = write_tables(tmp_path, runs, {})
    assert write_tables(tmp_path, runs[:1], {}) == files
    assert len(json.loads(files[0].read_text())["runs"]) == 1
