"""Stage 1 on synthetic heads, through the real loop: video alone teaches relief and camera. Ground truth only measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from dagan.data.truth import ClipTruth, read_truth, truth_of
from dagan.evaluate.depth import measure_depth, summarise_depth
from dagan.evaluate.depth_networks import open_networks
from dagan.synthetic.clip import synthesise
from dagan.train.depth import DepthStage
from dagan.train.recipe import DepthRecipe, read_recipe
from dagan.train.training import train

RECIPE = Path(__file__).parents[3] / "recipes" / "tiny-depth.yaml"
# As recipes/depth-lite.yaml, smaller; the camera starts from the focal length that the released network starts from.
SETTINGS = (
    "data.hold_out=0", "sampling.gap=[4, 12]", "sampling.min_motion=0.02", "batch_size=12", "optimiser.lr=2e-3",
    "optimiser.schedule=cosine", "loss.scales=1", "loss.levels=2", "loss.consistency=0.03", "loss.start_share=0.2", "egomotion.focal=0.7",
    "model.encoder_widths=[16, 16, 24, 32, 48]", "model.decoder_widths=[8, 12, 16, 24, 32]", "ema=0.95", "log_every=50",
    "picture_every=1000", "validate_every=1000", "seed=1",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """On heads that training does not see. spearman: mean rank correlation in the face. focal: mean relative error."""

    spearman: float
    focal: float


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of clips: to train on, with the ground truth removed; to measure on."""
    folder = tmp_path_factory.mktemp("heads")
    synthesise(folder / "train", 10, 64, seed=31, frames=32)
    synthesise(folder / "measure", 5, 64, seed=32, frames=16)
    for path in (folder / "train").iterdir():
        if path.suffix != ".mp4":
            path.unlink()
    return folder / "train", folder / "measure"


def measured(checkpoint: Path, folder: Path) -> Measured:
    networks = open_networks(str(checkpoint), device="cpu")
    clips = [measure_depth(path, networks, _truth(path), None, every=6, gap=6) for path in sorted(folder.glob("*.mp4"))]
    table = summarise_depth(clips, networks, ()).synthetic
    return Measured(table["spearman"][0], table["focal"][0])


def _truth(path: Path) -> ClipTruth:
    description = truth_of(path)
    assert description is not None
    return read_truth(description)


@pytest.mark.slow
@pytest.mark.timeout(900)  # 40 s on an idle core
def test_video_alone_teaches_relief_and_camera(heads: tuple[Path, Path], tmp_path: Path) -> None:
    training, folder = heads

    def trained(steps: int, output: str, *settings: str) -> Measured:
        recipe = read_recipe(
            DepthRecipe, RECIPE, [*SETTINGS, *settings, f"data.train={training}", f"output={tmp_path / output}", f"max_steps={steps}"]
        )
        train(recipe, DepthStage, console=Console(quiet=True))
        return measured(tmp_path / output / "last.ckpt", folder)

    # One step at a vanishing rate: the networks as they were drawn.
    before = trained(1, "before", "optimiser.lr=1e-9")
    after = trained(120, "after")
    assert abs(before.spearman) < 0.25
    assert after.spearman > 0.5
    assert before.focal > 0.5
    assert after.focal < 0.75 * before.focal  # against the prior, which draws to where it started
