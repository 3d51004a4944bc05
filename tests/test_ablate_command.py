"""`dagan ablate`: trains, measures, tabulates, compares, and goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dagan.cli import app
from dagan.errors import InputError
from dagan.evaluate.ablation import AblateOptions, Training, ablate, read_table
from dagan.evaluate.figures import DepthMeasurement, Figure, RunFigures, contrasts, figures_of, markdown, spread, write_tables
from dagan.evaluate.records import Evaluation, Metric, PairScores
from dagan.models.depth import DepthNetwork
from dagan.synthetic.clip import synthesise
from dagan.train.depth import save_depth
from dagan.train.recipe import DepthRecipe, GanRecipe, read_recipe
from dagan.train.training import Result

RECIPES = Path(__file__).parents[1] / "recipes"
FIGURES = {
    "spearman": Figure(title="rank correlation", value=0.5, digits=3), "normals": Figure(title="normals, degrees", value=20.0, digits=1)
}  # fmt: skip
RUN = RunFigures(variant="a", seed=0, steps=5, minutes=0.1, settings=(), figures=FIGURES)


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
    each = [r["figures"]["synthetic/spearman"]["value"] for r in note["runs"][:2]]
    assert each[0] != each[1], "seeds differ"
    assert measured["mean"] == pytest.approx(sum(each) / 2)
    assert measured["count"] == 2
    assert note["variants"]["learnt"]["synthetic/spearman"]["deviation"] is None
    # Each run is an ordinary one, made with its settings.
    card = json.loads((out / "runs" / "learnt-0" / "log.jsonl").read_text().splitlines()[-1])
    assert card["step"] == 2
    page = (out / "ablation.md").read_text()
    assert "Runs: frozen, as before: 2 of 2 steps; learnt: 1 of 2 steps." in page
    assert "| figure | frozen, as before | learnt |" in page
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
        ablate(table, [f"data.train={heads}"], AblateOptions(output=tmp_path / "out"), training, DepthMeasurement(synthetic=heads))
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
    options, measure = AblateOptions(output=tmp_path / "out"), DepthMeasurement(synthetic=heads)
    training = Training(partial(read_recipe, DepthRecipe), lambda *_: pytest.fail("it trains"))
    with pytest.raises(InputError, match="levels"):
        ablate(table, [f"data.train={heads}", "loss.levels=9"], options, training, measure)
    with pytest.raises(InputError, match="no variant 'lernt': it has frozen, as before, learnt"):
        ablate(table, [], replace(options, only=("lernt",)), training, measure)
    with pytest.raises(InputError, match="no seed 7: it has 0, 1"):
        ablate(table, [], replace(options, seeds=(7,)), training, measure)
    with pytest.raises(InputError, match="--synthetic"):
        ablate(table, [], options, training, DepthMeasurement())
    with pytest.raises(InputError, match="holds no figures of this table"):
        ablate(table, [], replace(options, tabulate=True), training, measure)
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


def test_what_depth_brings_is_asked_at_equal_steps() -> None:
    read = read_table(RECIPES / "ablations" / "gan.yaml")
    recipes = {v.name: read_recipe(GanRecipe, read.recipe, [*read.settings, *v.settings]) for v in read.variants}
    models = {name: (m.use_depth, m.depth_in_keypoints, m.attention) for name, m in ((n, r.model) for n, r in recipes.items())}
    assert models == {
        "lite": (True, True, "coarsest"), "RGB only": (False, False, "none"), "depth in keypoints only": (True, True, "none"),
        "normalised depth": (True, True, "coarsest"), "attention only": (True, False, "coarsest"),
        "attention at all scales": (True, True, "all"),
        "plus (all scales, keypoints on two branches)": (True, True, "all"),
    }  # fmt: skip
    assert [name for name, recipe in recipes.items() if recipe.model.normalise_depth] == ["normalised depth"]
    assert {(r.batch_size * r.max_steps, r.model.image_size, r.optimiser.lr) for r in recipes.values()} == {(8000, 128, 4e-4)}
    assert {v.seeds for v in read.variants} == {(0, 1, 2)}


def test_the_design_table_leaves_out_one_part_at_a_time() -> None:
    design, depth = (read_table(RECIPES / "ablations" / name) for name in ("design.yaml", "gan.yaml"))
    assert (design.recipe, design.settings, design.variants[0]) == (depth.recipe, depth.settings, depth.variants[0]), "one run serves both"
    recipes = {v.name: read_recipe(GanRecipe, design.recipe, [*design.settings, *v.settings]) for v in design.variants}
    parts = {
        name: (
            r.model.motion.landmark_variance, r.model.generator.landmark_variance, r.loss.crops, r.loss.detail,
            (r.sampling.expressive, r.sampling.lively), r.loss.explicit, (r.model.keypoints.count, len(r.model.keypoints.landmarks)),
        )
        for name, r in recipes.items()
    }  # fmt: skip
    whole = parts.pop("lite")
    assert whole == (0.001, 0.0005, 3, 60, (0.6, 0.5), 0.7, (22, 15))
    left_out = (None, None, 0, 0, (0, 0), 0, (15, 8))
    assert list(parts.values()) == [(*whole[:i], left_out[i], *whole[i + 1 :]) for i in range(len(whole))]


def test_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    better = {key: replace(figure, value=figure.value + (0.2 if key == "spearman" else 2)) for key, figure in FIGURES.items()}
    runs = [RUN, replace(RUN, seed=1, figures=better), replace(RUN, variant="b", steps=9)]
    seen = spread(runs[:2], "spearman")
    assert seen is not None
    assert (seen.mean, seen.count) == (pytest.approx(0.6), 2)
    assert seen.deviation == pytest.approx(0.1 * 2**0.5)
    assert spread(runs, "landmarker") is None
    page = markdown(runs, [], "a", {"recipe": "r.yaml"})
    assert "Runs: a: 2 of 5 steps; b: 1 of 9 steps." in page
    assert "| rank correlation | 0.600 ± 0.141 | 0.500 |" in page
    assert "| normals, degrees | 21.0 ± 1.4 | 20.0 |" in page
    files = write_tables(tmp_path, runs, "a", {})
    assert write_tables(tmp_path, runs[:1], "a", {}) == files
    assert len(json.loads(files[0].read_text())["runs"]) == 1


def _measured(variant: str, seed: int, offsets: dict[str, float], clips: int = 10) -> RunFigures:
    """A run whose clips have their own levels of l1 and psnr, moved by an offset of the figure."""
    figures = {}
    for key, better in (("l1", "lower"), ("psnr", "higher")):
        values = {f"clip{i}": i / 10 + 0.01 * (i % 3) * (1 + seed) + offsets[key] for i in range(clips)}
        figures[key] = Figure(title=key, value=sum(values.values()) / clips, digits=3, better=better, clips=values)
    return replace(RUN, variant=variant, seed=seed, figures=figures)


def test_variants_are_compared_on_the_same_clips_and_seeds() -> None:
    base = [_measured("base", seed, {"l1": 0, "psnr": 0}) for seed in (0, 1)]
    # In "mixed" the seeds disagree on l1, whatever clips say.
    other = [_measured("other", seed, {"l1": 0.05, "psnr": 0.02}) for seed in (0, 1)]
    mixed = [_measured("mixed", seed, {"l1": 0.05 - 0.06 * seed, "psnr": 0}) for seed in (0, 1)]
    few = [_measured("few", 0, {"l1": 0.5, "psnr": 0}, clips=4)]
    found = {(c.variant, c.figure): c for c in contrasts([*base, *other, *mixed, *few], "base")}
    worse = found["other", "l1"]
    assert (worse.standing, worse.clips) == ("worse", 10)
    assert worse.difference == pytest.approx(0.05)
    assert worse.by_seed == (pytest.approx(0.05), pytest.approx(0.05))
    assert worse.p == pytest.approx(2 / 2**10)  # ten clips, all on one side
    assert worse.adjusted is not None
    assert worse.adjusted > worse.p
    assert found["other", "psnr"].standing == "better"
    assert found["mixed", "l1"].adjusted is not None
    assert found["mixed", "l1"].adjusted < 0.05
    assert found["mixed", "l1"].standing == found["mixed", "psnr"].standing == "same"
    assert (found["few", "l1"].p, found["few", "l1"].standing, found["few", "l1"].clips) == (None, "same", 4)
    (alone,) = (c for c in contrasts([base[0], other[0]], "base") if c.figure == "l1")
    assert (alone.p, alone.standing) == (worse.p, "same"), "one seed shows nothing of what is trained"
    page = markdown([*base, *other], [found["other", "l1"], found["other", "psnr"]], "base", {})
    assert "(worse, p 0.0" in page
    assert "(better, p 0.0" in page


def test_figures_by_head_turn_are_those_of_their_frames() -> None:
    metric = Metric(key="l1", title="L1", better="lower", range="0 to 1", tool="t")
    slow = Metric(key="flicker", title="Flicker", better="lower", range="any", tool="t", per="clip", unit="levels")
    total = Metric(key="slope", title="Mouth", better="higher", range="any", tool="t", per="set")
    scores = PairScores(
        pair="p", source="c.mp4", driving="c.mp4", method="m", frames=(0, 5, 10, 15), rotation=(1.0, 12.0, 15.0, None),
        values={"l1": (0.1, 0.2, 0.3, None), "flicker": (2.0,)},
    )  # fmt: skip
    evaluation = Evaluation(
        protocol="reconstruction", metrics=(metric, slow, total), methods=("m",), scores=(scores,), totals={"m": {"slope": 0.9}}
    )  # fmt: skip
    found = figures_of(evaluation)
    assert set(found) == {"l1", "flicker", "slope", "l1/0-10", "l1/10-20"}
    assert found["l1"].clips == {"c.mp4": pytest.approx(0.2)}
    assert found["l1/0-10"].value == pytest.approx(0.1)
    assert found["l1/10-20"].value == pytest.approx(0.25)
    assert found["l1/10-20"].part == "Heads turned by 10 to 20 degrees"
    assert (found["flicker"].title, found["flicker"].digits, found["slope"].value) == ("Flicker, levels", 2, 0.9)


def test_stage_2_is_compared_on_people_held_out_and_figures_travel(clips_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(f"""
recipe: {json.dumps(str(RECIPES / "tiny-gan.yaml"))}
settings: [max_steps=2, batch_size=2, log_every=1, loss.adversarial=0]
variants:
  - {{name: no attention, settings: [model.generator.attention=none]}}
  - {{name: RGB only, settings: [model.use_depth=false]}}
""")
    torch.manual_seed(0)
    save_depth(tmp_path / "depth.safetensors", DepthNetwork(read_recipe(DepthRecipe, RECIPES / "tiny-depth.yaml").model), {})
    out, there = tmp_path / "out", ["-o", str(tmp_path / "out"), "--every", "4"]
    shared = [f"data.train={clips_folder}", f"depth_weights={tmp_path / 'depth.safetensors'}"]
    done = CliRunner().invoke(app, ["ablate", "gan", str(path), *shared, *there, "--only", "RGB only"])
    assert done.exit_code == 0, done.exception
    # Another machine, with other folders, makes the other variant; its file is put beside.
    done = CliRunner().invoke(app, ["ablate", "gan", str(path), *shared, "threads=1", *there, "--only", "no attention"])
    assert done.exit_code == 0, done.exception
    done = CliRunner().invoke(app, ["ablate", "gan", str(path), "-o", str(out), "--tabulate"])
    assert done.exit_code == 0, done.exception
    note = json.loads((out / "ablation.json").read_text())
    assert [(r["variant"], r["seed"]) for r in note["runs"]] == [("no attention", 0), ("RGB only", 0)]
    figures = json.loads((out / "figures" / "rgb-only-0.json").read_text())["figures"]
    assert 0 < figures["l1"]["value"] < 1
    assert 0 < len(figures["l1"]["clips"]) < 8, "only some are held out"
    contrast = next(c for c in note["contrasts"] if (c["variant"], c["figure"]) == ("RGB only", "l1"))
    theirs, ours = (run["figures"]["l1"]["value"] for run in note["runs"])
    assert contrast["difference"] == pytest.approx(ours - theirs)
    assert str(tmp_path) not in (out / "ablation.md").read_text()
