"""Clips packed into shards: what is in them, that anybody's WebDataset reads them, and that a killed run leaves the same files."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from dagan.cli.animate import PORTRAIT
from dagan.data.config import DataConfig
from dagan.data.landmark_tables import POINTS, landmarks_of, spread_of
from dagan.data.pack import PackConfig, pack
from dagan.data.shards import NOTE
from dagan.data.store import open_dataset
from dagan.errors import InputError
from dagan.media.decode import read_clip
from dagan.media.video import VideoWriter
from killed_runs import dagan_command, environment, killed_again_and_again, started, wait_until

SMALL = PackConfig(size=64, landmarks=False, shard_bytes=100_000)


def digest(folder: Path) -> dict[str, bytes]:
    """The contents of a folder's files. Archives of numbers hold the time at which they were made, so their arrays are compared."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found[path.name] = b"".join(arrays[key].tobytes() for key in sorted(arrays.files))
        else:
            found[path.name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def shards(clips_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shards"
    report = pack(clips_folder, folder, SMALL)
    assert (report.clips, report.frames, report.kept, report.skipped) == (8, sum(range(9, 17)), 0, ())
    assert report.shards > 1
    assert report.bytes == sum(path.stat().st_size for path in folder.iterdir())
    return folder


def test_training_reads_the_clips_frames(shards: Path, clips_folder: Path) -> None:
    data = open_dataset(DataConfig(train=shards, size=64, hold_out=0.3))
    videos = open_dataset(DataConfig(train=clips_folder, size=64, hold_out=0.3))
    assert data.held == videos.held != frozenset()
    assert {c.name: c.identity for c in data.clips} == {c.name: c.identity for c in videos.clips}
    for number, clip in enumerate(data.clips):
        wanted = read_clip(videos.clips[[c.name for c in videos.clips].index(clip.name)], 64)
        assert data.count[number] == len(wanted)
        assert data.rate[number] == pytest.approx(25)
        # Any order, any repetition.
        order = np.asarray([len(wanted) - 1, 0, 3, 3])
        found = data.store.gather(data.start[number] + order).numpy()
        assert np.abs(found.astype(float) - wanted[order]).mean() < 2.5
    smaller = open_dataset(DataConfig(train=shards, size=32, hold_out=0)).store.gather(np.asarray([5]))
    assert smaller.shape == (1, 3, 32, 32)


def test_thumbnails_are_those_of_the_decoded_frames(shards: Path, clips_folder: Path) -> None:
    data, videos = (open_dataset(DataConfig(train=place, size=64, hold_out=0)) for place in (shards, clips_folder))
    assert data.thumbnails is not None
    assert videos.thumbnails is not None
    for number, clip in enumerate(data.clips):
        other = [c.name for c in videos.clips].index(clip.name)
        places = np.asarray([[7, 2], [2, 0]])
        assert np.array_equal(data.thumbnails[data.start[number] + places], videos.thumbnails[videos.start[other] + places])


def test_webdataset_reads_them(shards: Path) -> None:
    from webdataset import WebDataset

    tars = [str(path) for path in sorted(shards.glob("*.tar"))]
    samples = list(WebDataset(tars, shardshuffle=False, empty_check=False).decode("rgb8"))
    data = open_dataset(DataConfig(train=shards, size=64, hold_out=0))
    assert [sample["json"]["name"] for sample in samples] == [clip.name for clip in data.clips]
    for number, sample in enumerate(samples):
        frames = [sample[f"{i:06d}.jpg"] for i in range(sample["json"]["frames"])]
        ours = data.store.gather(data.start[number] + np.arange(len(frames))).permute(0, 2, 3, 1).numpy()
        assert np.abs(np.stack(frames).astype(int) - ours).max() <= 4, "decoders round differently"
        assert sample["thumbnails.npy"].shape == (len(frames), 16, 16)


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
def test_a_better_quality_is_nearer(clips_folder: Path, tmp_path: Path, encoding: str) -> None:
    errors, sizes = [], []
    for quality in (30, 95):
        folder = tmp_path / str(quality)
        sizes.append(pack(clips_folder, folder, PackConfig(size=64, landmarks=False, encoding=encoding, quality=quality)).bytes)  # type: ignore[arg-type]
        data = open_dataset(DataConfig(train=folder, size=64, hold_out=0))
        clip = data.clips[0]
        wanted = read_clip(type(clip)(clips_folder / clip.name, clip.name, clip.identity), 64)
        errors.append(np.abs(data.store.gather(data.start[0] + np.arange(len(wanted))).numpy().astype(float) - wanted).mean())
    assert errors[1] < 0.6 * errors[0]
    assert sizes[0] < sizes[1]


def test_every_and_captions_and_portraits(clips_folder: Path, portraits_folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(clips_folder, clips)
    first = min(clips.glob("*.mp4"))
    first.with_suffix(".txt").write_text("a blob that swings\n", encoding="utf-8")
    config = PackConfig(size=64, every=3, landmarks=False)
    pack(clips, tmp_path / "shards", config, portraits=portraits_folder)
    data = open_dataset(DataConfig(train=tmp_path / "shards", size=64, hold_out=0))
    assert sum(clip.still for clip in data.clips) == 6
    assert data.count[data.members("train")].sum() == sum(-(-n // 3) for n in range(9, 17))
    assert data.rate[data.members("train")].max() < 11
    with np.load(tmp_path / "shards" / "shard-00000.npz") as index:
        captions = dict(zip(index["name"].tolist(), index["caption"].tolist(), strict=True))
    assert captions[first.name] == "a blob that swings"
    assert sum(map(bool, captions.values())) == 1
    with tarfile.open(tmp_path / "shards" / "shard-00000.tar") as tar:
        (text,) = [member for member in tar if member.name.endswith(".txt")]
        assert tar.extractfile(text).read() == b"a blob that swings\n"  # type: ignore[union-attr]


def test_landmarks_travel_along(tmp_path: Path, write_clip: Callable[..., None]) -> None:
    photo = Image.open(PORTRAIT).convert("RGB").resize((160, 160))
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a", "b"):
        write_clip(clips / f"{name}.mp4", [np.asarray(photo.rotate(turn * (1 if name == "a" else -2))) for turn in range(4)])
    write_clip(clips / "c.mp4", [np.full((160, 160, 3), 90, np.uint8)] * 5)
    pack(clips, tmp_path / "shards", PackConfig(size=64))
    data = open_dataset(DataConfig(train=tmp_path / "shards", size=64, hold_out=0, landmarks=True))
    found = data.landmarks
    assert found is not None
    videos = [type(c)(clips / c.name, c.name, c.identity) for c in data.clips]
    wanted = landmarks_of(videos, data.count.tolist(), None, "", lambda items, text, total: items)
    assert np.isfinite(wanted[:, 0, 0]).sum() == 8, "a grey picture has no face"
    everything = np.arange(len(wanted)).reshape(1, -1)
    assert found[everything].shape == (1, len(wanted), len(POINTS), 2)
    np.testing.assert_array_equal(found[everything][0], wanted)
    assert data.spread is not None
    spread = spread_of(wanted, data.count.tolist())
    np.testing.assert_allclose(data.spread.deviation, spread.deviation, rtol=1e-5)
    np.testing.assert_allclose(data.spread.clips, spread.clips, rtol=1e-5)


def test_a_second_run_keeps_what_is_there_and_takes_what_is_new(shards: Path, clips_folder: Path, tmp_path: Path) -> None:
    copy, clips = tmp_path / "shards", tmp_path / "clips"
    shutil.copytree(shards, copy)
    shutil.copytree(clips_folder, clips)
    before = digest(copy)
    assert pack(clips, copy, SMALL).kept == 8
    assert digest(copy) == before
    shutil.copy(min(clips.iterdir()), clips / "new.mp4")
    report = pack(clips, copy, SMALL)
    assert (report.kept, report.clips) == (8, 9)
    assert {name: block for name, block in digest(copy).items() if name in before and name != NOTE} == {
        name: block for name, block in before.items() if name != NOTE
    }
    with pytest.raises(InputError, match=r"packed with other settings \(quality: 90 -> 80\)"):
        pack(clips, copy, PackConfig(size=64, landmarks=False, shard_bytes=100_000, quality=80))


def test_a_budget_is_kept_and_no_clip_is_lost(clips_folder: Path, tmp_path: Path) -> None:
    whole = pack(clips_folder, tmp_path / "whole", PackConfig(size=64, landmarks=False))
    budget = whole.bytes // 2
    half = pack(clips_folder, tmp_path / "half", PackConfig(size=64, landmarks=False, budget=budget))
    assert half.clips == whole.clips
    assert 0.5 * budget < sum(path.stat().st_size for path in (tmp_path / "half").iterdir()) <= budget
    assert 0 < half.frames < whole.frames


def test_a_clip_that_cannot_be_decoded_is_named_and_left_out(clips_folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(clips_folder, clips)
    (clips / "broken.mp4").write_bytes(b"no video at all" * 100)
    said: list[str] = []
    report = pack(clips, tmp_path / "shards", SMALL, warn=said.append)
    assert report.clips == 8
    assert len(report.skipped) == 1
    assert "broken.mp4" in report.skipped[0]
    assert len(said) == 1


def test_refusals(shards: Path, clips_folder: Path, portraits_folder: Path, tmp_path: Path) -> None:
    for change, words in (
        ({"size": 96}, "holds frames of 64 pixels, but data.size is 96"), ({"landmarks": True}, "packed without landmarks"),
        ({"portraits": portraits_folder}, "with --portraits"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            open_dataset(DataConfig(train=shards, **({"size": 64} | change)))  # type: ignore[arg-type]
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(InputError, match="holds no shards"):
        pack(clips_folder, other, SMALL)
    half = tmp_path / "half"
    shutil.copytree(shards, half)
    note = json.loads((half / NOTE).read_text(encoding="utf-8"))
    (half / NOTE).write_text(json.dumps(note | {"complete": False}), encoding="utf-8")
    with pytest.raises(InputError, match="not packed to its end"):
        open_dataset(DataConfig(train=half, size=64))
    tar = max(half.glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:1000])
    (half / NOTE).write_text(json.dumps(note), encoding="utf-8")
    data = open_dataset(DataConfig(train=half, size=64, hold_out=0))
    with pytest.raises(InputError, match="is too short"):
        data.store.gather(np.asarray([int(data.count.sum()) - 1]))


def test_where_nothing_can_be_packed_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "text.mp4").write_text("hello")
    said: list[str] = []
    with pytest.raises(InputError, match="not a single clip could be packed"):
        pack(tmp_path / "clips", tmp_path / "shards", SMALL, warn=said.append)
    assert len(said) == 1
    assert not (tmp_path / "shards").exists()


def test_the_command_says_what_it_packed(command: Callable[..., tuple[int, str, str]], clips_folder: Path, tmp_path: Path) -> None:
    words = ("pack", clips_folder, "-o", tmp_path / "shards", "--size", "64", "--no-landmarks", "--shard-size", "0.1MB")
    code, said, complaint = command(*words)
    assert code == 0, complaint
    assert "8 clips of 100 frames in" in said
    for wrong in (("--budget", "many"), ("--encoding", "bmp"), ("--size", "65")):
        code, _, complaint = command(*words[:4], *wrong)
        assert code == 2
        assert complaint.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_killed_leaves_the_same_files(shards: Path, clips_folder: Path, tmp_path: Path, workers: int) -> None:
    output = tmp_path / "shards"
    words = ("pack", clips_folder, "-o", output, "--size", "64", "--no-landmarks", "--shard-size", "0.1MB", "--workers", workers)

    def whole() -> None:
        assert digest(output) == digest(shards)
        shutil.rmtree(output)

    killed_again_and_again(dagan_command(*words), output.exists, whole, seed=workers)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_with_a_sentence(shards: Path, clips_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "shards"
    command = dagan_command("pack", clips_folder, "-o", output, "--size", "64", "--no-landmarks", "--shard-size", "0.1MB", "--workers", 2)
    with started(command) as process:
        found: list[psutil.Process] = []

        def at_work() -> bool:
            found[:] = [p for p in psutil.Process(process.pid).children(recursive=True) if _is_worker(p)]
            return bool(found)

        assert wait_until(at_work, process)
        found[-1].kill()
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 2
    assert said.splitlines()[-1].endswith("try fewer --workers (what is finished is kept)")
    assert "Traceback" not in said
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    assert digest(output) == digest(shards)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.slow
def test_pairs_come_at_least_five_times_as_fast_as_from_videos(tmp_path: Path) -> None:
    """The clips are as large and long as those of training sets. Processor time is measured in turns, whatever else the machine does."""
    clips = tmp_path / "clips"
    rates: dict[str, list[float]] = {"videos": [], "shards": []}
    clips.mkdir()
    photo = Image.open(PORTRAIT).convert("RGB").resize((256, 256))
    for number in range(2):
        turned = [np.asarray(photo.rotate(turn / (4 + number), Image.Resampling.BICUBIC)) for turn in range(200)]
        with VideoWriter(clips / f"{number}.mp4", 256, 256, rate=25) as video:
            for i, picture in enumerate(turned):
                video.write(picture, Fraction(i, 25))
    pack(clips, tmp_path / "shards", PackConfig(size=256, landmarks=False))
    places = {"videos": clips, "shards": tmp_path / "shards"}
    opened = {name: open_dataset(DataConfig(train=place, size=256, storage="disk", hold_out=0)) for name, place in places.items()}
    rng = np.random.default_rng(0)
    for turn in range(6):
        for name, data in opened.items():
            pairs = rng.integers(0, 200, (8, 2)) + 200 * rng.integers(0, 2, (8, 1))
            begun = time.process_time()
            data.store.gather(pairs.reshape(-1))
            if turn:  # Files are opened in the first.
                rates[name].append(len(pairs) / (time.process_time() - begun))
    assert np.median(rates["shards"]) >= 5 * np.median(rates["videos"]), rates


def test_addresses_are_read_through_fsspec(shards: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())
    local = open_dataset(DataConfig(train=shards, size=64, hold_out=0))
    numbers = np.random.default_rng(0).integers(0, int(local.count.sum()), 30)
    for order, cache in (("random", None), ("epochs", None), ("epochs", tmp_path / "cache")):
        config = DataConfig(train="memory://bucket/set", size=64, hold_out=0, order=order, balance="clip", cache=cache)  # type: ignore[arg-type]
        remote = open_dataset(config)
        assert torch.equal(remote.store.gather(numbers), local.store.gather(numbers))
        assert remote.thumbnails is not None
        assert local.thumbnails is not None
        assert np.array_equal(remote.thumbnails[numbers], local.thumbnails[numbers])
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.tar")) == sorted(path.name for path in shards.glob("*.tar"))
    memory.rm("/bucket/set/shard-00001.tar")
    with pytest.raises(InputError, match=r"shard-0000\d.tar cannot be read"):
        open_dataset(DataConfig(train="memory://bucket/set", size=64, hold_out=0)).store.gather(np.arange(100))
    with pytest.raises(InputError, match=r"shards\.json or a file beside it cannot be read"):
        open_dataset(DataConfig(train="memory://bucket/elsewhere", size=64))
    with pytest.raises(InputError, match="nowhere"):
        open_dataset(DataConfig(train="nowhere://bucket", size=64))
