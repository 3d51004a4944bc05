"""Frames by clip and by number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagan.data.clips import Clip, find_clips
from dagan.errors import InputError
from dagan.media.decode import RandomReader, probe, read_clip
from running_samples import moving_pictures


def test_probe_counts_what_decoding_gives(clips_folder: Path) -> None:
    for i, clip in enumerate(find_clips(clips_folder)):
        known = probe(clip)
        assert known.count == 9 + i == len(read_clip(clip, 32))
        assert known.rate == 25
        assert known.keys is not None
        assert known.keys[0]
        assert 1 < known.keys.sum() < known.count


def test_any_frame_in_any_order_is_the_decoded_one(clips_folder: Path) -> None:
    reader = RandomReader(64, limit=2)  # fewer open files than clips: some are closed and opened again
    clips = find_clips(clips_folder)
    everything = [read_clip(c, 64) for c in clips]
    assert all(np.abs(np.diff(e.astype(int), axis=0)).mean((1, 2, 3)).min() > 0.5 for e in everything), "frames must differ"
    rng = np.random.default_rng(0)
    for _ in range(30):
        i = rng.integers(len(clips))
        wanted = rng.integers(0, len(everything[i]), 3).tolist()
        assert np.array_equal(reader.read(clips[i], probe(clips[i]), wanted), everything[i][wanted])


def test_images_are_cut_to_their_middle_square(tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60, 1] = 200
    for i in range(3):
        Image.fromarray(picture).save(folder / f"{i}.png")
    frames = read_clip(Clip(folder, "wide", "wide"), 32)
    assert frames.shape == (3, 3, 32, 32)
    # The middle square is the green part.
    assert frames[:, 1].min() > 190
    assert frames[:, 0].max() == 0
    assert np.array_equal(RandomReader(32).read(Clip(folder, "wide", "wide"), probe(Clip(folder, "wide", "wide")), [2, 0]), frames[[2, 0]])


def test_wide_video_is_cut_and_colours_survive(tmp_path: Path, write_clip: Callable[[Path, list[np.ndarray]], None]) -> None:
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:] = (180, 60, 40)
    picture[:, :20] = 255
    write_clip(tmp_path / "wide.mp4", [picture] * 3)
    frames = read_clip(Clip(tmp_path / "wide.mp4", "wide.mp4", "wide"), 32)
    assert np.abs(frames.mean((0, 2, 3)) - (180, 60, 40)).max() < 4


def test_files_that_are_no_videos_are_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"not a video" * 50)
    for act in (probe, lambda clip: read_clip(clip, 32)):
        with pytest.raises(InputError, match=r"broken\.mp4"):
            act(Clip(path, "broken.mp4", "x"))
    image = tmp_path / "broken.png"
    image.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"broken\.png is not an image that can be read"):
        read_clip(Clip(image, "broken.png", "x", still=True), 32)


def test_every_look_at_a_clip_finds_its_times_and_key_frames(tmp_path: Path, write_clip: Callable[..., None]) -> None:
    """What is read of a file that is closed already is random: most looks at a clip found no times, and drawing a frame decoded all."""
    write_clip(tmp_path / "a.mp4", moving_pictures(12))
    clip = Clip(tmp_path / "a.mp4", "a.mp4", "a")
    found = [probe(clip) for _ in range(30)]
    assert all(one.times is not None and one.keys is not None and one.keys.sum() == 3 for one in found)
