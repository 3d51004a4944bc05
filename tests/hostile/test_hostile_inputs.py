"""Damaged and hostile files for every command: each is refused in one sentence, or gives a right result.

DAGAN_HOSTILE=2000 tries so many cases in place of CASES; DAGAN_HOSTILE_SEED other ones.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hostile.damage import BINARY, TEXT
from hostile.specimens import SPECIMENS, write_samples

CASES = 200
# What a command may take, in seconds; it takes a fraction of one.
LONGEST = 20.0
WORKER = Path(__file__).with_name("worker.py")


class Worker:
    """A process that runs commands, started anew where one hangs or takes the process down."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, arguments: tuple[str, ...], folder: Path, longest: float = LONGEST) -> dict[str, Any]:
        """What `hostile.worker.run` gives; a status of None where the command did not come back."""
        if self.process is None:
            self._start()
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"arguments": arguments, "folder": str(folder)}) + "\n")
        self.process.stdin.flush()
        try:
            return json.loads(self.answers.get(timeout=longest))
        except (queue.Empty, ValueError):
            ended = self.process.poll()
            self.stop()
            return {"status": None, "out": "", "err": f"took more than {longest} s" if ended is None else f"ended by signal {-ended}"}

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _start(self) -> None:
        environment = os.environ | {"DAGAN_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        command = [sys.executable, str(WORKER)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_pump, args=(self.process.stdout, self.answers), daemon=True).start()
        assert json.loads(self.answers.get(timeout=60)) == {"ready": True}


def _pump(lines: Any, answers: queue.Queue[str]) -> None:
    for line in lines:
        answers.put(line)
    answers.put("")  # the end: nobody waits for more


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, worker: Worker, onnx_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for command in write_samples(folder, onnx_folder):
        answer = worker.run(command, folder, 120)
        assert answer["status"] == 0, answer
    return folder


@dataclass(frozen=True)
class Case:
    """One damaged file and the command that reads it."""

    number: int
    path: str
    damage: str
    arguments: tuple[str, ...]
    content: bytes


def cases(samples: Path, count: int, seed: int) -> Iterator[Case]:
    """Every specimen in turn, each time with another damage and command, as the seed has it."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        specimen = SPECIMENS[number % len(SPECIMENS)]
        kinds = TEXT if specimen.text else BINARY
        damage = kinds[rng.integers(len(kinds))]
        command = specimen.commands[rng.integers(len(specimen.commands))]
        arguments = tuple(word.replace("{}", specimen.path) for word in command)
        yield Case(number, specimen.path, damage.__name__, arguments, damage(rng, (samples / specimen.path).read_bytes()))


def faults(case: Case, answer: dict[str, Any], folder: Path, before: set[str]) -> list[str]:
    """What is wrong with how a command ended; nothing where all is well."""
    found = []
    status, complaints = answer["status"], answer["err"].splitlines()
    if status not in (0, 2):
        found.append(f"status {status}")
    if "Traceback" in answer["err"] + answer["out"]:
        found.append("a traceback")
    sentences = [line for line in complaints if line.startswith("dagan: ")]
    if status == 2 and (not complaints or not complaints[-1].startswith("dagan: ")):
        found.append("no sentence at the end")
    if status == 2 and sentences and len(sentences[-1]) > 700:
        found.append("a sentence too long to read")
    new = {path for path in _files(folder) - before if not path.startswith(("run/", "trained/"))}
    wanted = {word for word in case.arguments if word.startswith("out")}
    litter = {path for path in new if path.split("/")[0] not in wanted} if status == 0 else new
    if litter:
        found.append(f"left behind {sorted(litter)}")
    if status == 0 and "out.mp4" in wanted:
        try:
            with av.open(str(folder / "out.mp4")) as container:
                if not sum(1 for _ in container.decode(video=0)):
                    found.append("a result without frames")
        except (OSError, av.FFmpegError) as error:
            found.append(f"a result that cannot be read: {error}")
    return found


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _tried(case: Case, samples: Path, folder: Path, worker: Worker) -> list[str]:
    shutil.copytree(samples, folder)
    (folder / case.path).write_bytes(case.content)
    before = _files(folder)
    answer = worker.run(case.arguments, folder)
    found = faults(case, answer, folder, before)
    if not found:
        shutil.rmtree(folder)
        return []
    words = " ".join(case.arguments)
    return [f"case {case.number}: {case.path} {case.damage}; dagan {words}: {', '.join(found)}\n{answer['err'][-1500:]}"]


@pytest.mark.slow
def test_what_the_commands_read_is_read_when_it_is_whole(samples: Path, worker: Worker, tmp_path: Path) -> None:
    # Else every refusal below could be of something else than the damage.
    for number, specimen in enumerate(SPECIMENS):
        for place, command in enumerate(specimen.commands):
            arguments = tuple(word.replace("{}", specimen.path) for word in command)
            case = Case(number, specimen.path, "whole", arguments, (samples / specimen.path).read_bytes())
            folder = tmp_path / f"{number}-{place}"
            shutil.copytree(samples, folder)
            answer = worker.run(arguments, folder, 120)
            assert answer["status"] == 0, (case.path, arguments, answer["err"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damaged_files_are_refused_or_read_rightly(samples: Path, worker: Worker, tmp_path: Path) -> None:
    count, seed = int(os.environ.get("DAGAN_HOSTILE", CASES)), int(os.environ.get("DAGAN_HOSTILE_SEED", 0))
    fell: list[str] = []
    for case in cases(samples, count, seed):
        fell += _tried(case, samples, tmp_path / str(case.number), worker)
    assert not fell, f"{len(fell)} of {count} cases:\n" + "\n".join(fell)


def test_faults_are_seen(tmp_path: Path) -> None:
    """The checks above can fail."""
    case = Case(0, "a", "whole", ("animate", "-o", "out.mp4"), b"")
    good = {"status": 2, "out": "", "err": "dagan: a is no photo: give another\n"}
    assert faults(case, good, tmp_path, set()) == []
    assert faults(case, good | {"status": None}, tmp_path, set()) == ["status None"]
    fallen = good | {"err": "Traceback (most recent call last):\n"}
    assert faults(case, fallen, tmp_path, set()) == ["a traceback", "no sentence at the end"]
    assert faults(case, good | {"err": "dagan: " + "x" * 800}, tmp_path, set()) == ["a sentence too long to read"]
    (tmp_path / ".out.mp4.part").write_bytes(b"half")
    assert faults(case, good, tmp_path, set()) == ["left behind ['.out.mp4.part']"]
    (tmp_path / ".out.mp4.part").unlink()
    (tmp_path / "out.mp4").write_bytes(b"half")
    assert "cannot be read" in faults(case, {"status": 0, "out": "", "err": ""}, tmp_path, set())[0]
