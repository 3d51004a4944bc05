"""`benchmarks/naive.py`: the naive way computes the same pictures in a process that ends whatever happens, and both ways are timed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from naive import Naive, Rival, main

from dagan.animate.animator import Animator
from dagan.bench.timing import write_clip
from dagan.errors import InputError
from running_samples import moving_pictures, save_tiny_model, tiny_model

PICTURES = moving_pictures(5)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "tiny.safetensors")


def test_the_naive_way_draws_the_same_pictures():
    model = tiny_model()
    with torch.no_grad():
        model.generator.attention.gamma.fill_(0.7)  # or attention would not count
    naive = Naive(model, PICTURES[0])
    animator = Animator(model)
    animator.set_source(PICTURES[0])
    wanted = animator.animate_batch(PICTURES)
    for picture, quick in zip(PICTURES, wanted, strict=True):
        assert np.abs(naive.frame(picture) * 255 - quick).max() <= 1
    assert np.abs(wanted[0].astype(int) - wanted[3]).max() > 5  # and they move
    assert type(model.generator.attention).__name__ == "CrossModalAttention"  # its own model is untouched


@pytest.mark.slow
def test_the_naive_process_ends_whatever_happens(model_file: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 2)
    with Rival(str(model_file), "cpu", "float32", PICTURES[0]) as rival:
        assert 0 < rival.seconds(clip, tmp_path / "out.mp4") < 60
    assert rival._process.exitcode == 0
    with pytest.raises(KeyboardInterrupt), Rival(str(model_file), "cpu", "float32", PICTURES[0]) as rival:
        raise KeyboardInterrupt
    assert not rival._process.is_alive()
    with Rival(str(model_file), "cpu", "float32", PICTURES[0]) as rival:
        rival._process.kill()
        with pytest.raises(InputError, match="its process ended"):
            rival.seconds(clip, tmp_path / "out.mp4")


def test_a_line_for_each_naive_model(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", str(model_file), "--frames", "9", "--naive-frames", "2", "--rounds", "2", "--device", "cpu"])
    found = re.fullmatch(r"naive .*: ([\d.]+) frames/s; .*: ([\d.]+); ([\d.]+) times \(([\d.]+), ([\d.]+)\)\n", capsys.readouterr().out)
    assert found is not None
    plain, quick, ratio, first, second = map(float, found.groups())
    assert ratio == pytest.approx((first + second) / 2, abs=0.11)
    assert min(plain, quick) > 0
