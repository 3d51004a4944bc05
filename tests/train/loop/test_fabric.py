"""How many processes train together, by the recipe and by what started them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dagan.cli import main
from dagan.errors import InputError
from dagan.train.fabric import make_fabric, started_ranks
from toy_stage import toy_recipe


def ranks(rank: object, world: object, local_rank: object, local_world: object) -> dict[str, str]:
    values = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": local_world}
    return {name: str(value) for name, value in values.items() if value is not None}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, None), ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, None), (ranks(0, 1, 0, 1), (1, 1)), (ranks(1, 2, 1, 2), (2, 1)),
     (ranks(6, 8, 2, 4), (4, 2))],
)  # fmt: skip
def test_ranks_are_read_from_the_environment(environment: dict[str, str], expected: tuple[int, int] | None) -> None:
    assert started_ranks(environment) == expected


@pytest.mark.parametrize(
    "environment", [ranks(0, 2, None, None), ranks(0, 2, 0, None), ranks(0, "two", 0, 2), ranks(2, 2, 0, 2), ranks(0, 3, 0, 2)]
)
def test_ranks_that_make_no_sense_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"RANK=.*torchrun"):
        started_ranks(environment)


@pytest.mark.parametrize("devices", [1, 3])
def test_another_number_of_devices_than_torchrun_started_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    for name, value in ranks(0, 2, 0, 2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"devices is {devices}, but torchrun started 2 processes on this machine"):
        make_fabric(toy_recipe(tmp_path, devices=devices))
    assert make_fabric(toy_recipe(tmp_path, devices=2)).world_size == 2
    assert make_fabric(toy_recipe(tmp_path, devices="auto")).world_size == 2


def test_without_ranks_one_device_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ranks(0, 0, 0, 0):
        monkeypatch.delenv(name, raising=False)
    assert make_fabric(toy_recipe(tmp_path)).world_size == 1


def test_refusal_is_one_sentence_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    for name, value in ranks(0, 2, 0, 2).items():
        monkeypatch.setenv(name, value)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output: {tmp_path}/out\ndata: {{train: {tmp_path}}}\naccelerator: cpu\ndevices: 3\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["dagan", "train", "depth", str(recipe)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("dagan: devices is 3, but torchrun started 2 processes on this machine")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_processes_of_another_launcher_that_would_each_train_alone_are_refused(name, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(name, "1")
    assert make_fabric(toy_recipe(tmp_path)).world_size == 1
    monkeypatch.setenv(name, "4")
    with pytest.raises(InputError, match=r"4 processes were started .* start them with torchrun"):
        make_fabric(toy_recipe(tmp_path))
