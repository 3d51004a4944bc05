"""Sets up Lightning Fabric: devices, precision, objectives wrapped so that they may return anything, and a watch over processes.

The watch looks after the other processes of a run. Where one has ended, all others end within a minute, with a sentence, instead of waiting
for it. A process that waits for another on a device cannot be interrupted. It would wait until the connection's time is up, which has to be
hours, because the first process may decode clips as long.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, cast

import lightning_fabric as L
import psutil
import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy
from torch import nn

from dagan.device import choose_device, choose_precision, slowness
from dagan.errors import InputError
from dagan.progress import Warn, to_stderr
from dagan.train.recipe import Recipe

PATIENCE = timedelta(hours=24)  # So long processes wait for each other; this watch ends them long before where one is dead.
_LOOK = 1.0  # Seconds between two looks.
_SILENT = 40.0  # Seconds after which a process of another machine that gives no sign of life counts as ended.
_DONE = b"done"


def ended(rank: int, world: int) -> str:
    """Returns the sentence about a process that has ended."""
    return (
        f"process {rank} of {world} (counted from 0) has ended, so all others end too: look for its own message; "
        "the same command goes on from the last checkpoint"
    )


class Watch:
    """A thread that gives signs of life, and looks for those of the others, from `begin` until `end`."""

    def __init__(self, rank: int, world: int, leave: Callable[[int], None] = os._exit) -> None:
        self.rank, self.world, self._leave = rank, world, leave
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")

    def begin(self) -> None:
        """Begins to watch. The processes are connected already."""
        # The store in which processes find each other at their start has no public name. A copy may be used by another thread.
        shared: Any = dist.distributed_c10d._get_default_store()
        self._store = dist.PrefixStore("dagan-watch", shared.clone())
        self._store.set(f"place-{self.rank}", f"{socket.gethostname()} {os.getpid()}")
        self._thread.start()

    def end(self) -> None:
        """Ends watching. All processes must have come here, or another one may take this one's end for its death."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        others = [rank for rank in range(self.world) if rank != self.rank]
        try:
            places = {rank: self._store.get(f"place-{rank}").decode().split() for rank in others}
            here = [(rank, int(pid)) for rank, (host, pid) in places.items() if host == socket.gethostname()]
            away = {rank: (b"", time.monotonic()) for rank, (host, _) in places.items() if host != socket.gethostname()}
            beats = 0
            while not self._over.wait(_LOOK):
                beats += 1
                self._store.set(f"alive-{self.rank}", str(beats))
                dead = [rank for rank, pid in here if not _lives(pid)]
                for rank, (before, since) in away.items():
                    sign = self._store.get(f"alive-{rank}")
                    if sign != before:
                        away[rank] = sign, time.monotonic()
                    elif time.monotonic() - since > _SILENT:
                        dead.append(rank)
                if dead:
                    self._give_up(dead[0])
                    return
        except Exception:  # The process that keeps the store has ended, and each version of PyTorch says so in its own way.
            if not self._over.is_set():
                self._give_up(0 if self.rank else others[0])

    def _give_up(self, rank: int) -> None:
        # A second is left for the main thread, whose own message may say more.
        if self._over.wait(_LOOK):
            return
        print(f"dagan: {ended(rank, self.world)}", file=sys.stderr, flush=True)
        self._leave(1)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def as_sentence(error: RuntimeError) -> InputError | None:
    """Returns the sentence for an error of a connection to another process, or None for any other error."""
    text = str(error)
    if isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "NCCL", "Connection closed", "Connection reset")):
        return InputError(
            f"the connection to another process of the run is lost ({text.splitlines()[0][:120]}): look for the other's own message; "
            "the same command goes on from the last checkpoint"
        )
    return None


# These say how many processes Slurm's srun and the two families of mpirun started.
_STARTED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class Autocast(MixedPrecision):
    """Mixed precision by autocast alone: images and coordinates go in as float32, and losses come out as float32.

    The parent class also rounds every input to 16 bits, which would round a keypoint to 1/256 of the image's width.
    """

    def convert_input(self, data: Any) -> Any:
        """Returns inputs as they are."""
        return data

    def convert_output(self, data: Any) -> Any:
        """Returns outputs as they are."""
        return data


class Carried:
    """An objective's result, hidden from Fabric, which would look into it and fail at frozen dataclasses."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Carrier(nn.Module):
    """Wraps an objective so that Fabric sees its result as one opaque object."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, *args: Any, **kwargs: Any) -> Carried:
        return Carried(self.objective(*args, **kwargs))


def unwrapping(module: Callable[..., Carried]) -> Callable[..., Any]:
    """Returns a function that calls the wrapped module and gives the objective's own result."""
    return lambda *args, **kwargs: module(*args, **kwargs).value


def _mixed(precision: str, device: torch.device, warn: Warn) -> Literal["bf16-mixed", "16-mixed"] | None:
    """Returns the mixed precision to train in, or None for float32 throughout. `warn` is told of one that is slow on this machine."""
    if precision == "auto":
        names: dict[torch.dtype, Literal["bf16-mixed", "16-mixed"]] = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
        return names.get(choose_precision("auto", device))
    if precision not in ("bf16-mixed", "16-mixed"):
        return None
    slow = slowness(torch.bfloat16 if precision == "bf16-mixed" else torch.float16, device)
    if slow is not None and slow > 1:
        warn(f"precision {precision} is slow here: this CPU takes {slow:.0f} times as long for it as for float32: set precision=auto")
    return cast(Literal["bf16-mixed", "16-mixed"], precision)


def started_ranks(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Returns the number of processes on this machine and of machines, where torchrun or its like started every process; else None.

    Raises InputError where the environment names several processes but does not say which of them belong to this machine.
    """
    if not {"RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    text = ", ".join(f"{name}={environment.get(name, '(unset)')}" for name in names)
    try:
        rank, world, local_rank, local_world = (int(environment[name]) for name in names)
    except (KeyError, ValueError):
        raise InputError(f"{text}: start all processes with torchrun, which sets these four, or unset them") from None
    if not (0 <= rank < world and 0 <= local_rank < local_world and world % local_world == 0):
        raise InputError(f"{text}: these do not fit together, so start as many processes on every machine, with torchrun")
    return local_world, world // local_world


def _processes(recipe: Recipe) -> tuple[dict[str, Any], list[Any]]:
    """Returns Fabric's devices, machines and strategy, and its plugins. They are the recipe's, or torchrun's where it started this process.

    Raises InputError where both are named and differ, because each process would then train for itself, all into one folder.
    """
    ranks = started_ranks()
    if ranks is None:
        devices = 1 if recipe.devices is None else recipe.devices
        several = recipe.strategy == "ddp" or (isinstance(devices, int) and devices > 1)
        return {"devices": devices, "strategy": _ddp() if several else recipe.strategy}, []
    here, machines = ranks
    if recipe.devices not in (None, "auto", here):
        started = f"torchrun started {here} process{'es' if here > 1 else ''} on this machine"
        raise InputError(f"devices is {recipe.devices}, but {started}: make them equal, or leave devices out")
    strategy = _ddp() if here * machines > 1 or recipe.strategy == "ddp" else "auto"
    return {"devices": here, "num_nodes": machines, "strategy": strategy}, [TorchElasticEnvironment()]


def _ddp() -> DDPStrategy:
    return DDPStrategy(timeout=PATIENCE)


def compile_objective(objective: nn.Module, device: torch.device, warn: Warn) -> None:
    """Compiles an objective in its place. Where this machine has no compiler for the device, `warn` is told, and nothing is changed."""
    try:
        # Only a trial says whether a compiler is there and works.
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device=device))
    except Exception as error:  # Compilers, drivers and PyTorch fail in ways of their own.
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        warn(f"compile is true, but nothing can be compiled here ({reason.strip()[:160]}): training goes on without")
        return
    objective.compile()


def make_fabric(recipe: Recipe, warn: Warn = to_stderr) -> L.Fabric:
    """Sets up Fabric as a recipe asks. Processes that torchrun started find each other.

    `warn` is told of a precision that is slow on this machine. Raises InputError for an accelerator that is not there.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    kind = recipe.accelerator
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("accelerator is cuda, but no CUDA device can be used: set accelerator (or --device) to cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("accelerator is mps, but this machine has none: set accelerator (or --device) to cpu or auto")
    device = choose_device("auto" if kind == "auto" else kind)
    processes, plugins = _processes(recipe)
    half = _mixed(recipe.precision, device, warn)
    if half is not None:
        plugins.append(Autocast(half, device.type))
    try:
        fabric = L.Fabric(accelerator=kind, plugins=plugins, **processes)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"devices {processes['devices']} with accelerator {kind}: {str(error).splitlines()[0]}") from None
    _refuse_strangers(fabric.world_size)
    return fabric


def _refuse_strangers(world: int) -> None:
    """Raises InputError where a launcher that Fabric does not follow started several processes, because each would train alone."""
    for name in _STARTED:
        started = os.environ.get(name, "1")
        if world == 1 and started not in ("0", "1"):
            raise InputError(f"{started} processes were started ({name}), which would all train into one folder: start them with torchrun")
