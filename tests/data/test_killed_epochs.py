"""Epochs of a run whose process is killed in the middle of one, and which goes on with another number of processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dagan.data.pack import PackConfig, pack
from dagan.train.log import load_checkpoint
from dagan.weights.files import read_card
from killed_runs import TORCHRUN, environment, started, wait_until
from noted_draws import drawn_clips

TESTS = Path(__file__).parents[1]
CLIPS = 8


@pytest.mark.slow
def test_a_process_killed_within_an_epoch_loses_and_repeats_nothing(clips_folder: Path, tmp_path: Path) -> None:
    shards, run = tmp_path / "shards", tmp_path / "run"
    pack(clips_folder, shards, PackConfig(size=64, landmarks=False, shard_bytes=100_000))
    before, after = tmp_path / "before", tmp_path / "after"
    program = str(TESTS / "noted_draws.py")
    recipe = str(TESTS.parent / "recipes" / "tiny-gan.yaml")
    settings = [
        f"data.train={shards}", f"output={run}", "data.order=epochs", "data.balance=clip", "data.hold_out=0", "data.workers=2",
        "batch_size=1", "depth_weights=null", "model.use_depth=false", "checkpoint_minutes=0",
    ]  # fmt: skip
    for folder in (before, after):
        folder.mkdir()

    def within_an_epoch() -> bool:
        steps = read_card(run / "model.safetensors")["steps"] if (run / "model.safetensors").is_file() else 0
        return 2 * steps > CLIPS and 2 * steps % CLIPS == 2

    with started([*TORCHRUN, program, str(before), "train", "gan", recipe, *settings, "max_steps=1000"]) as both:
        assert wait_until(within_an_epoch, both)
        psutil.Process(both.pid).children(recursive=True)[-1].kill()
        both.communicate(timeout=60)
    reached = load_checkpoint(run / "last.ckpt")
    samples = reached["samples"]
    assert samples == 2 * reached["step"]
    total = (samples // CLIPS + 2) * CLIPS  # The epoch that was begun, and one more.
    steps = reached["step"] + total - samples
    alone = [sys.executable, program, str(after), "train", "gan", recipe, *settings, f"max_steps={steps}"]
    subprocess.run(alone, env=environment(), check=True, capture_output=True, timeout=120)
    first, second = drawn_clips(before), drawn_clips(after)
    assert min(second) == samples
    counted = [first[place] for place in range(samples)] + [second[place] for place in range(samples, total)]
    assert all(len(clips) == 1 for clips in counted), "a place was drawn twice"
    for epoch in range(total // CLIPS):
        drawn = [clip for (clip,) in counted[epoch * CLIPS : (epoch + 1) * CLIPS]]
        assert sorted(drawn) == list(range(CLIPS)), f"epoch {epoch}"
