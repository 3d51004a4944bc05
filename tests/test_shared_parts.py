"""Batches, colours, squares, progress, memory and early checks of outputs."""

import subprocess
import sys
from itertools import count, islice

import numpy as np
import pytest

from dagan.errors import InputError
from dagan.media.colour import colour_table, colourise, robust_range
from dagan.media.framing import to_square
from dagan.media.output import check_destination, check_distinct
from dagan.processes import peak_device_memory_mb, peak_memory_mb
from dagan.progress import counted
from dagan.stream import batched
from running_samples import moving_pictures


def test_batches_do_not_read_ahead():
    numbers = count()
    batches = batched(numbers, 3)
    assert next(batches) == [0, 1, 2]
    assert next(numbers) == 3
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []


def test_outliers_do_not_stretch_the_range():
    disparity = np.linspace(0.2, 0.4, 10_000, dtype=np.float32)
    disparity[:50], disparity[-50:] = 0.0, 1.0
    low, high = robust_range(disparity)
    assert low == pytest.approx(0.204, abs=1e-3)
    assert high == pytest.approx(0.396, abs=1e-3)


def test_colours_run_from_the_first_to_the_last():
    table = colour_table("gray")
    assert table.shape == (256, 3)
    assert table[0].tolist() == [0, 0, 0]
    assert table[-1].tolist() == [255, 255, 255]
    painted = colourise(np.array([[0.0, 0.25], [0.375, 0.9]]), 0.25, 0.5, table)
    assert painted[..., 0].tolist() == [[0, 0], [128, 255]]
    assert (colourise(np.full((2, 2), 0.5), 0.5, 0.5, table) == 0).all()  # a flat map is one colour


def test_the_known_maps_have_their_colours():
    assert colour_table("inferno")[0].tolist() == [0, 0, 4]
    assert colour_table("turbo")[128].tolist() != colour_table("inferno")[128].tolist()
    with pytest.raises(InputError, match=r"no colour map 'infern'.*inferno"):
        colour_table("infern")


def test_squares():
    picture = moving_pictures(1, 90, 60)[0]
    assert (to_square(picture, 60) == picture[:, 15:75]).all()
    assert to_square(picture, 64).shape == (64, 64, 3)
    # A fine chessboard becomes its mean, not an alias of itself.
    board = np.indices((256, 256)).sum(0) % 2 * 255
    small = to_square(np.repeat(board[..., None], 3, 2).astype(np.uint8), 64)
    assert np.abs(small[4:-4, 4:-4].astype(int) - 127).max() <= 2


def test_progress_is_told_after_each_item():
    told = []
    items = counted("abc", lambda stage, done, total: told.append((stage, done, total)), "reading", 3)
    assert list(islice(items, 2)) == ["a", "b"]
    assert told == [("reading", 0, 3), ("reading", 1, 3)]
    assert list(items) == ["c"]
    assert told[-1] == ("reading", 3, 3)


def test_peak_memory_counts_what_was_once_held():
    code = (
        "from dagan.processes import peak_memory_mb\nbefore = peak_memory_mb()\nheld = bytearray(200 * 2**20)\n"
        "held[::4096] = b'x' * len(held[::4096])\ndel held\nprint(peak_memory_mb() - before, before)"
    )
    grown, before = map(float, subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert 180 < grown < 260
    assert 1 < before < 100
    assert peak_memory_mb() > 50
    assert peak_device_memory_mb("cpu") is None


def test_a_good_destination_leaves_no_trace(tmp_path):
    check_destination(tmp_path / "new" / "a.mp4", "a video", (".mp4",), overwrite=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.mp4").write_text("mine")
    check_destination(tmp_path / "a.mp4", "a video", (".mp4",), overwrite=True)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.mp4", "mine")]


def test_bad_destinations_are_named(tmp_path):
    (tmp_path / "a.mp4").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    cases = {
        "a.mp4": "exists already",
        "folder.mp4": "is a folder",
        "a.txt": r"ends in '.txt': a video is written to .mp4 or .gif",
        "name": r"has no suffix: a video is written to .mp4",
        "a.mp4/b.mp4": "cannot be written|cannot be made",
    }
    for name, words in cases.items():
        with pytest.raises(InputError, match=words):
            check_destination(tmp_path / name, "a video", (".mp4", ".gif"), overwrite=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "folder.mp4"]


def test_outputs_must_be_files_of_their_own(tmp_path):
    a, b = tmp_path / "a.mp4", tmp_path / "b.json"
    check_distinct([a, None, b], [tmp_path / "c.mp4"])
    with pytest.raises(InputError, match="is an input too"):
        check_distinct([a, b], [tmp_path / "x" / ".." / "a.mp4"])
    with pytest.raises(InputError, match="two outputs"):
        check_distinct([a, None, a], [])
