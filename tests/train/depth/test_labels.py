"""The second part of stage 1: rounds of learning from labels, through the real loop."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from dagan.data.config import AugmentConfig
from dagan.data.store import ClipDataset, MemoryStore
from dagan.errors import InputError
from dagan.losses.depth import label_difference
from dagan.synthetic.clip import synthesise
from dagan.train import log as runlog
from dagan.train.depth import DepthStage
from dagan.train.fabric import make_fabric
from dagan.train.labels import LabelFiles, Labels, labelled_batch
from dagan.train.recipe import DepthRecipe, ViewsConfig, read_recipe
from dagan.train.stage import Objectives, Update
from dagan.train.training import train
from run_files import assert_same, lines, trained_parts

RECIPE = Path(__file__).parents[3] / "recipes" / "tiny-depth.yaml"


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips in which heads turn."""
    folder = tmp_path_factory.mktemp("turning")
    synthesise(folder, 4, 64, seed=61, frames=40)
    return folder


def recipe(clips: Path, output: Path, *settings: str) -> DepthRecipe:
    rounds = ("views.rounds=2", "views.start=0.25", "views.frames=12", "views.reach=8", "data.hold_out=0", "max_steps=8")
    return read_recipe(DepthRecipe, RECIPE, [f"data.train={clips}", f"output={output}", *rounds, *settings])


def test_rounds_come_evenly_after_the_start() -> None:
    config = ViewsConfig(rounds=3, start=0.4)
    assert [config.round_of(step, 10) for step in range(10)] == [
        (-1, False), (-1, False), (-1, False), (-1, False), (0, True), (0, False), (1, True), (1, False), (2, True), (2, False),
    ]  # fmt: skip
    assert ViewsConfig(rounds=1, start=0).round_of(0, 10) == (0, True)


@pytest.mark.parametrize("setting", ["rounds=-1", "start=1", "start=-0.1", "frames=0", "step=0", "reach=1"])
def test_settings_out_of_range_are_refused(setting: str, tmp_path: Path) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(InputError, match=f"views[. ]{name} is"):
        recipe(tmp_path, tmp_path, f"views.{setting}")


@pytest.mark.slow
def test_losses_change_with_the_rounds(turning: Path, tmp_path: Path) -> None:
    train(recipe(turning, tmp_path, "log_every=1"), DepthStage, console=Console(quiet=True))
    learnt = {line["step"]: ("depth/views" in line, "depth/photometric" in line) for line in lines(tmp_path) if "minutes" in line}
    assert learnt == {step: (step > 2, step <= 2) for step in range(1, 9)}
    # Two rounds' labels stay, so that a checkpoint from before the last one can be continued.
    for name in ("labels-0-0.npz", "labels-1-0.npz"):
        with np.load(tmp_path / name) as kept:
            assert 0 < len(kept["numbers"]) <= 12
            assert kept["inverse"].shape == (len(kept["numbers"]), 1, 64, 64)


@pytest.mark.slow
def test_rounds_run_in_mixed_precision(turning: Path, tmp_path: Path) -> None:
    train(recipe(turning, tmp_path, "precision=bf16-mixed", "log_every=1"), DepthStage, console=Console(quiet=True))
    assert lines(tmp_path)[-1]["depth/views"] > 0


class Interrupted(DepthStage):
    """Ends the run within a step; checkpoints before."""

    at = 6

    def updates(self, objectives: Objectives, batch: int, step: int) -> Iterator[Update]:
        if step == self.at:
            raise RuntimeError("power cut")
        return super().updates(objectives, batch, step)


@pytest.mark.slow
@pytest.mark.parametrize("saved", [6, 4], ids=["within the round", "before the round began"])
def test_run_resumed_is_the_uninterrupted_one(turning: Path, tmp_path: Path, saved: int, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Console(quiet=True)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe(turning, whole, "checkpoint_minutes=0"), DepthStage, console=quiet)
    save = runlog.save_checkpoint
    monkeypatch.setattr(runlog, "save_checkpoint", lambda folder, kept, keep: save(folder, kept, keep) if kept["step"] <= saved else None)
    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe(turning, parts, "checkpoint_minutes=0"), Interrupted, console=quiet)
    monkeypatch.undo()
    train(recipe(turning, parts, "checkpoint_minutes=0"), DepthStage, console=quiet)
    assert_same(trained_parts(whole), trained_parts(parts))
    assert_same(load_file(whole / "depth.safetensors"), load_file(parts / "depth.safetensors"))


def test_labels_of_other_clips_are_not_read(tmp_path: Path) -> None:
    labels = Labels(np.arange(2), torch.zeros(2, 1, 4, 4, dtype=torch.float16))
    files = LabelFiles(tmp_path, 0, "a")
    for round_ in range(3):
        files.save(round_, labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels-1-0.npz", "labels-2-0.npz"]
    assert files.load(2) is not None
    assert LabelFiles(tmp_path, 0, "b").load(2) is None
    assert LabelFiles(tmp_path, 1, "a").load(2) is None


def heard(clips: Path, output: Path, *settings: str) -> str:
    """What a run says."""
    said = io.StringIO()
    train(recipe(clips, output, "log_every=1", *settings), DepthStage, console=Console(file=said, width=200))
    return said.getvalue()


def test_clips_without_turns_are_trained_on_in_pairs(write_clip: Callable[[Path, list[np.ndarray]], None], tmp_path: Path) -> None:
    picture = np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)
    (tmp_path / "clips").mkdir()
    for name in ("a", "b"):
        write_clip(tmp_path / "clips" / f"{name}.mp4", [picture] * 40)
    said = heard(tmp_path / "clips", tmp_path, "views.start=0", "views.rounds=1")
    assert "0 of them are in clips that turn enough" in said
    assert all("depth/photometric" in line for line in lines(tmp_path) if "minutes" in line)


def test_clips_that_are_too_short_are_trained_on_in_pairs(clips_folder: Path, tmp_path: Path) -> None:
    assert "no training clip has 41 frames" in heard(clips_folder, tmp_path, "views.start=0", "views.step=10", "views.rounds=1")
    assert all("depth/photometric" in line for line in lines(tmp_path) if "minutes" in line)


def test_a_run_that_is_to_end_does_not_finish_the_search_first(turning: Path, tmp_path: Path) -> None:
    made = recipe(turning, tmp_path, "views.start=0")
    stage = DepthStage(made, make_fabric(made))
    stage.open_data(Console(quiet=True))
    assert stage.prepare(0, stage.objective, lambda text: None, lambda: True) is False
    assert stage.labels is None
    assert stage.prepare(0, stage.objective.eval(), lambda text: None, lambda: False) is True
    assert stage.labels is not None
    stage.close()


def test_label_goes_where_its_picture_goes() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 3, 16, 16), np.uint8)
    none = np.zeros(1, np.int64)
    dataset = ClipDataset((), none, none + 3, np.ones(1), frozenset(), MemoryStore(frames), None)
    # The label of a frame is its first channel: it still must be after mirroring.
    labels = Labels(np.arange(3), torch.from_numpy(frames[:, :1]).half() / 255)
    batch = labelled_batch(labels, dataset, AugmentConfig(flip=0.5), 24, seed=0, step=0, rank=0, device=torch.device("cpu"))
    torch.testing.assert_close(batch.frame[:, :1], batch.inverse, atol=1e-3, rtol=0)
    originals = torch.from_numpy(frames).float() / 255
    mirrored = {any(torch.allclose(frame.flip(-1), original, atol=1e-3) for original in originals) for frame in batch.frame}
    assert mirrored == {True, False}


def test_label_difference_ignores_scale_and_what_is_behind_the_head() -> None:
    generator = torch.Generator().manual_seed(1)
    label = 1 + 0.05 * torch.rand(2, 1, 32, 32, generator=generator)
    label[..., :6] = 0.3
    behind = label.clone()
    behind[..., :6] = 0.8
    assert label_difference(5 * behind, label) < 1e-4
    assert label_difference(label.flip(-2), label) > 0.01
