"""The job: raw videos in, a folder of clips out, with their tables and a report. Started again, it goes on.

Each raw video gets a folder of its own below `prepared`, named by the video's contents and the options, with clips, pictures and a record.
It appears at once and whole. When all are there, clips are moved to `train/IDENTITY` and `test/IDENTITY`; a clip's name is unique, so that
it is found wherever a run that was killed has left it. Tables and reports are computed from the records alone. A run may therefore be
ended at any moment, and the next one comes to the same result.

Raw videos are shared out to the processes of one machine, or by Ray Data to the machines of a cluster, each by the same function. Every
machine of a cluster must see the raw videos and the folder of clips under the same paths, as on a file system that they share. When a
worker or a machine is lost, Ray gives its videos to another one; nothing half done is left visible.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagan.checks import json_text
from dagan.errors import InputError, require_extra
from dagan.media.output import atomic_output
from dagan.prepare.identities import Shown, Split, split
from dagan.prepare.raws import FORMAT, PrepareOptions, Raw, find_raws, listed, read_list
from dagan.prepare.report import write_metadata, write_report, write_sheets
from dagan.prepare.video import RECORD, Outcome, Task, prepare_video, read_record
from dagan.processes import ENDED, WorkerEndedError, as_value, connected, in_processes
from dagan.progress import Progress, Warn

STAGE = "raw videos"
PREPARED, TRAIN, TEST, SETTINGS = "prepared", "train", "test", "settings.json"
_ATTEMPTS = 3  # So often workers are started again that were ended from outside.
_PARTS = 4096  # Videos are shared out in at most so many parts, because Ray keeps account of each.


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What came of a run."""

    folder: Path
    """The folder of clips."""
    totals: Mapping[str, Any]
    """The totals of the report."""
    sheets: tuple[Path, ...]
    """The contact sheets."""


def prepare(
    raws: Sequence[Path], output: Path, options: PrepareOptions, progress: Progress, warn: Warn, *,
    lists: Path | None = None, workers: int = 1, cluster: str | None = None, overwrite: bool = False,
) -> Prepared:  # fmt: skip
    """Prepares raw videos, `workers` at a time, by processes of this machine or, where `cluster` names one, by a Ray cluster.

    What is there of an earlier run with the same options is kept, and added to. Raises InputError for wrong inputs, for a folder with clips
    of other options (unless `overwrite` is set, which removes them), and where nothing can be written.
    """
    require_extra("prepare", "preparing raw videos")
    if cluster is not None:
        require_extra("cluster", "--cluster")
    if workers < 1:
        raise InputError(f"--workers is {workers}: must be at least 1")
    settings = _settings(options)
    wanted = None if lists is None else read_list(lists)
    found = find_raws([place for place in raws if _outside(place, output)])
    outside: list[dict[str, str]] = []
    if wanted is not None:
        found, missing = listed(found, wanted)
        outside += [{"source": video, "reason": "missing", "found": f"no file is named {video}"} for video in missing]
    found, copies = _distinct(found)
    outside += copies
    _open_folder(output, settings, overwrite)
    tasks = {raw.key(settings): Task(raw, output / PREPARED / raw.key(settings), options) for raw in found}
    failures = _run(tasks, output, progress, warn, workers, cluster)
    outside += [{"source": outcome.raw, "reason": "failed", "found": outcome.failure} for outcome in failures]
    return _finish(output, options, settings, outside, warn)


def _settings(options: PrepareOptions) -> dict[str, Any]:
    digest = None
    if options.identity is not None:
        require_extra("evaluate", "--identity")
        if not options.identity.is_file():
            raise InputError(f"{options.identity} does not exist: give an ONNX face recognition network")
        digest = hashlib.sha256(options.identity.read_bytes()).hexdigest()[:32]
    return {"format": FORMAT, **options.of_clips(), "identity": digest}


def _outside(place: Path, output: Path) -> bool:
    if output.resolve().is_relative_to(place.resolve()) and place.is_dir():
        raise InputError(f"{output} lies in {place}, which holds the raw videos: write clips somewhere else")
    return True


def _distinct(raws: Iterable[Raw]) -> tuple[list[Raw], list[dict[str, str]]]:
    """Leaves out videos with the contents of another one that a list does not tell apart."""
    first: dict[object, Raw] = {}
    copies = []
    for raw in raws:
        known = first.setdefault((raw.digest, raw.wanted), raw)
        if known is not raw:
            copies.append({"source": raw.name, "reason": "duplicate", "found": f"the same as {known.name}"})
    return list(first.values()), copies


def _open_folder(output: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Refuses a folder with anything but clips of these settings, and clears away what a killed run has left."""
    if output.is_file():
        raise InputError(f"{output} is a file: give the name of a folder for the clips")
    file = output / SETTINGS
    text = json_text(settings)
    if file.is_file() and (overwrite or file.read_text(encoding="utf-8") != text):
        if not overwrite:
            differing = _differing(file, settings)
            remedy = "choose another folder, or replace them with --overwrite"
            raise InputError(f"{output} holds clips of other options ({differing}): {remedy}")
        for name in (PREPARED, TRAIN, TEST):
            shutil.rmtree(output / name, ignore_errors=True)
    elif not file.is_file() and output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output} holds other files: name a new or an empty folder")
    with atomic_output(file, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")
    (output / PREPARED).mkdir(exist_ok=True)
    _clear(output)


def _differing(file: Path, settings: Mapping[str, Any]) -> str:
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    return ", ".join(f"{name} was {before.get(name)!r}, is {value!r}" for name, value in settings.items() if before.get(name) != value)


def _clear(output: Path) -> None:
    """Removes what was half written when a run was killed."""
    for left in [*output.glob(".*.part*"), *(output / PREPARED).glob(".*"), *output.glob(f"{TRAIN}/.*"), *output.glob(f"{TEST}/.*")]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _run(
    tasks: Mapping[str, Task], output: Path, progress: Progress, warn: Warn, workers: int, cluster: str | None
) -> list[Outcome]:  # fmt: skip
    """Prepares what is not there yet. Returns those that failed."""
    failures: list[Outcome] = []
    for attempt in range(1, _ATTEMPTS + 1):
        there = _places(output)
        waiting = [task for key, task in tasks.items() if not _complete(output, key, there)]
        waiting = [task for task in waiting if task.raw.name not in {failure.raw for failure in failures}]
        done = len(tasks) - len(waiting)
        progress(STAGE, done, len(tasks))
        try:
            with closing(_outcomes(waiting, workers, cluster)) as outcomes:
                for outcome in outcomes:
                    done += 1
                    progress(STAGE, done, len(tasks))
                    if outcome.failure:
                        failures.append(outcome)
            break
        except WorkerEndedError:
            if attempt == _ATTEMPTS:
                reason = "workers were ended from outside again and again, perhaps for want of memory"
                raise InputError(f"{reason}: try fewer --workers (what is ready is kept)") from None
            warn(f"{ENDED}: its videos are begun anew")
        finally:
            _clear(output)
    return failures


def _outcomes(waiting: Sequence[Task], workers: int, cluster: str | None) -> Generator[Outcome]:
    if not waiting:
        return
    if cluster is not None:
        yield from on_cluster(prepare_video, waiting, cluster, workers)
    elif workers == 1 or len(waiting) == 1:
        yield from map(prepare_video, waiting)
    else:
        yield from in_processes(prepare_video, waiting, min(workers, len(waiting)))


def on_cluster(function: Callable[[Task], Outcome], tasks: Sequence[Task], address: str, workers: int) -> Iterator[Outcome]:
    """Yields function(task) as they get ready. `address` is a Ray cluster's, or "local" for one of `workers` processes on this machine.

    Raises InputError where there is no cluster at the address, and whatever the function raises.
    """
    with connected(address, workers) as ray:
        from ray.data import DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # A worker that dies takes its video with it, which is begun anew elsewhere however often that happens.
        data = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=min(len(tasks), _PARTS))
        results = data.map(lambda row: {"outcome": as_value(function, row["task"])}, num_cpus=1, max_retries=-1)
        for row in results.iter_rows():
            outcome = row["outcome"]
            if isinstance(outcome, InputError):
                raise outcome
            yield outcome


def _places(output: Path) -> dict[str, Path]:
    """Returns where each clip is, by its name. What lies ready counts before what was moved on by an earlier run."""
    places = {}
    for folder in (TEST, TRAIN, PREPARED):
        places.update({path.stem: path for path in sorted((output / folder).glob("*/*.mp4"))})
    return places


def _complete(output: Path, key: str, places: Mapping[str, Path]) -> bool:
    folder = output / PREPARED / key
    record = read_record(folder)
    if record is None:
        return False
    strips = [f"{clip['name']}.jpg" for clip in record["clips"]] + [entry["picture"] for entry in record["rejections"]]
    clips_are_there = all(clip["name"] in places for clip in record["clips"])
    return clips_are_there and all((folder / strip).is_file() for strip in strips if strip)


def _finish(output: Path, options: PrepareOptions, settings: Mapping[str, Any], outside: Sequence[Any], warn: Warn) -> Prepared:
    """Moves the clips to whom they show, and writes tables, report and contact sheets."""
    places = _places(output)
    folders = sorted(file.parent for file in (output / PREPARED).glob(f"*/{RECORD}") if _complete(output, file.parent.name, places))
    records = [(folder, record) for folder in folders if (record := read_record(folder)) is not None]
    records.sort(key=lambda entry: (entry[1]["source"], entry[0].name))
    clips = [clip for _, record in records for clip in record["clips"]]
    chosen = split(
        [
            Shown(clip["name"], record["digest"], clip["identity"], None if clip["embedding"] is None else np.array(clip["embedding"]))
            for _, record in records for clip in record["clips"]
        ],
        options.hold_out, options.same, options.leak,
    )  # fmt: skip
    if not clips:
        warn("no clip is left: the report says why")
    for identity, other, cosine in chosen.moved:
        warn(f"{identity} is not set aside for testing, being so like {other}, who is trained on (cosine {cosine:.2f})")
    if options.hold_out and clips and not chosen.held:
        warn("nobody is set aside for testing: give raw videos of more people")
    _move(output, places, records, chosen)
    totals = write_report(output, [record for _, record in records], outside, chosen, {**settings, "hold_out": options.hold_out})
    return Prepared(folder=output, totals=totals, sheets=tuple(_sheets(output, records, chosen)))


def _move(output: Path, places: Mapping[str, Path], records: Sequence[tuple[Path, Any]], chosen: Split) -> None:
    rows: dict[str, list[dict[str, Any]]] = {TRAIN: [], TEST: []}
    wanted = set()
    for _, record in records:
        for clip in record["clips"]:
            identity = chosen.identities[clip["name"]]
            part = TEST if identity in chosen.held else TRAIN
            target = output / part / identity / f"{clip['name']}.mp4"
            wanted.add(target)
            if places[clip["name"]] != target:
                target.parent.mkdir(parents=True, exist_ok=True)
                places[clip["name"]].replace(target)
            rows[part].append({
                **clip, "file": f"{identity}/{target.name}", "identity": identity, "source": record["source"],
                "seconds": f"{clip['seconds']:.3f}", "start": f"{clip['start']:.3f}", "box": ":".join(map(str, clip["box"])),
                "face_height_px_before_resize": clip["face_height"],
            })  # fmt: skip
    for part, entries in rows.items():
        for path in (output / part).glob("*/*.mp4"):
            if path not in wanted:
                path.unlink()
        for folder in sorted((output / part).glob("*/")):
            with suppress(OSError):  # A folder with clips in it stays.
                folder.rmdir()
        if entries:
            write_metadata(output / part / "metadata.csv", sorted(entries, key=lambda row: row["file"]))
        else:
            shutil.rmtree(output / part, ignore_errors=True)


def _sheets(output: Path, records: Sequence[tuple[Path, Any]], chosen: Split) -> Iterator[Path]:
    clips, left_out = [], []
    for folder, record in records:
        for clip in record["clips"]:
            who = chosen.identities[clip["name"]]
            clips.append((folder / f"{clip['name']}.jpg", f"{clip['name']} {who} {clip['seconds']:.2f} s {record['source']}"))
        for entry in record["rejections"]:
            if entry["picture"]:
                left_out.append((folder / entry["picture"], f"{entry['reason']}: {entry['found']} ({record['source']})"))
    yield from write_sheets(output, "clips", clips)
    yield from write_sheets(output, "left-out", left_out)
