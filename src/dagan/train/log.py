"""What a run leaves in its folder: figures, pictures and checkpoints, and the moving average of weights and buffers that they hold.

Figures and pictures go to TensorBoard, a JSON-lines file, image files and the terminal. Pictures show depth in colours and keypoints as
dots, in rows and columns. A checkpoint is written beside its final name and then renamed. It can be read without executing code, and the
one before it is kept.

Legend: n samples, K keypoints, H W image.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from itertools import chain, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from dagan.checks import printable
from dagan.errors import InputError
from dagan.geometry import gaussian_heatmap, resize
from dagan.progress import Lines

LOG, PICTURES, BOARD = "log.jsonl", "pictures", "tensorboard"


class RunLog:
    """The logs of one output folder, continued from `step`. Lines of later steps, which a killed run left, are dropped."""

    def __init__(self, folder: Path, step: int, max_steps: int, console: Console) -> None:
        self.folder, self.console, self.max_steps = folder, console, max_steps
        if printable(str(folder)) != str(folder):
            raise InputError(f"the output folder {folder} has a name that is not UTF-8, which TensorBoard cannot write to: choose another")
        folder.mkdir(parents=True, exist_ok=True)
        _truncate(folder / LOG, step)
        self._board = SummaryWriter(str(folder / BOARD), purge_step=step)
        self._lines = (folder / LOG).open("a", encoding="utf-8")
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[left]}  {task.fields[note]}"))
        self._minutely = Lines(self.say, beginnings=False)
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=max_steps, completed=step, left="", note="")

    def __enter__(self) -> RunLog:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()
        self._lines.close()
        self._board.close()

    def advance(self, step: int, minutes_left: float) -> None:
        """Moves the bar. Without a terminal, it writes a line where nothing has been written for a minute."""
        if not self._progress.disable:
            self._progress.update(self._task, completed=step, left=f"{_duration(minutes_left)} left")
        else:
            self._minutely(f"{_duration(minutes_left)} left, steps", step, self.max_steps)

    def figures(self, step: int, figures: Mapping[str, float], headline: str) -> None:
        """Writes figures. `headline` is what the terminal shows of them."""
        numbers = {k: v if math.isfinite(v) else None for k, v in figures.items()}
        self._lines.write(json.dumps({"step": step} | numbers) + "\n")
        self._lines.flush()
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)
        if self._progress.disable:
            self.say(f"step {step}/{self.max_steps}  {headline}")
        else:
            self._progress.update(self._task, note=headline)

    def pictures(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        """Writes pictures, 3 x H x W in [0, 1]."""
        (self.folder / PICTURES).mkdir(exist_ok=True)
        for name, picture in pictures.items():
            bytes_ = picture.detach().float().clamp(0, 1).mul(255).round().byte().cpu()
            self._board.add_image(name, bytes_, step)
            Image.fromarray(bytes_.permute(1, 2, 0).numpy()).save(self.folder / PICTURES / f"{name}-{step:08d}.png")

    def say(self, text: str) -> None:
        """Writes a line for the user."""
        self._minutely.said()
        self.console.print(text, highlight=False, soft_wrap=True)


def clear(folder: Path) -> None:
    """Removes the logs of an earlier run."""
    (folder / LOG).unlink(missing_ok=True)
    for name in (PICTURES, BOARD):
        shutil.rmtree(folder / name, ignore_errors=True)


def headline(figures: Mapping[str, float]) -> str:
    """Returns the totals and the speed in a few words."""
    shown: dict[str, Any] = {k: v for k, v in figures.items() if k.endswith("total")}
    speed = figures.get("samples_per_second")
    parts = [f"{k.replace('/total', '')} {v:.4g}" for k, v in shown.items()]
    return "  ".join(parts + ([f"{speed:.1f} samples/s"] if speed else []))


def _duration(minutes: float) -> str:
    hours, rest = divmod(max(0, round(minutes)), 60)
    return f"{hours} h {rest:02d} min" if hours else f"{rest} min"


def _truncate(path: Path, step: int) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # The run was killed while this line was written.
    partial = path.with_name(f".{path.name}.part")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    partial.replace(path)


def colour_depth(disparity: Tensor) -> Tensor:
    """Colours disparities, n x 1 x H x W, as n x 3 x H x W in [0, 1]. Each is stretched to its own range, and near is bright."""
    low, high = disparity.amin((1, 2, 3), keepdim=True), disparity.amax((1, 2, 3), keepdim=True)
    return _colours((disparity - low) / (high - low).clamp(min=1e-6), "magma")


def draw_keypoints(image: Tensor, value: Tensor) -> Tensor:
    """Returns the images, n x 3 x H x W, with a dot of its own colour at each keypoint, n x K x 2."""
    height, width = image.shape[-2:]
    count = value.shape[1]
    colours = _colours(torch.linspace(0, 1, count).reshape(1, 1, 1, count), "hsv")[0, :, 0].to(image.device)
    dots = gaussian_heatmap(value.float(), (height, width), variance=4e-4)
    for k in range(count):
        weight = dots[:, k : k + 1]
        image = image * (1 - weight) + colours[:, k].reshape(1, 3, 1, 1) * weight
    return image


def grid(columns: list[Tensor]) -> Tensor:
    """Joins columns to one picture, 3 x (n H) x (columns W), with a sample per row.

    Columns are n x 1 x h x w or n x 3 x h x w, and are enlarged to the size of the first.
    """
    size = (columns[0].shape[-2], columns[0].shape[-1])
    full = [resize(c.float(), size).expand(-1, 3, -1, -1) for c in columns]
    row = torch.cat(full, dim=-1)
    return row.permute(1, 0, 2, 3).reshape(3, -1, row.shape[-1]).clamp(0, 1)


def _colours(values: Tensor, name: str) -> Tensor:
    """Colours values, n x 1 x H x W in [0, 1], as n x 3 x H x W."""
    from cmap import Colormap

    rgba = Colormap(name)(values[:, 0].detach().float().cpu().numpy())
    return torch.from_numpy(rgba[..., :3].copy()).float().permute(0, 3, 1, 2).to(values.device)


FORMAT = 1
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
MOST_KEPT = 100  # So many checkpoints may be kept.
# Settings that begin so describe the network and cannot change when a run is continued. All others may change.
_FIXED = ("model.", "egomotion.", "discriminator_width", "discriminator_max_width")
# These are exceptions: no weight depends on them.
_FREE = ("model.name", "model.image_size", "model.motion_size", "model.depth.size", "model.size", "egomotion.size")


def names_of(keep: int) -> list[str]:
    """Returns the names of so many checkpoints, the newest first: last.ckpt, previous.ckpt, previous-2.ckpt and so on."""
    return [LAST, PREVIOUS, *(f"{Path(PREVIOUS).stem}-{age}.ckpt" for age in range(2, keep))]


def save_checkpoint(folder: Path, payload: Mapping[str, Any], keep: int = 2) -> None:
    """Writes `last.ckpt`; the one before becomes `previous.ckpt`, and so on. So many are kept.

    When the process is killed, at any moment, one of them is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{LAST}.{os.getpid()}.part"
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT} | dict(payload), file)
            file.flush()
            os.fsync(file.fileno())
        names = names_of(keep)
        for older, newer in pairwise(reversed(names)):
            if (folder / newer).exists():
                (folder / newer).replace(folder / older)
        partial.replace(folder / LAST)
        for path in checkpoints(folder)[keep:]:  # More were kept before.
            path.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """Returns the whole checkpoints of a run's folder, the newest first."""
    return [folder / name for name in names_of(MOST_KEPT) if (folder / name).is_file()]


def find_checkpoint(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint of a run's folder, or None."""
    return next(iter(checkpoints(folder)), None)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU. Raises InputError for files of another kind."""
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist: give the path of a .ckpt file of an earlier run")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read as a checkpoint ({type(error).__name__}): remove it to start anew") from None
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of this program: remove it to start anew")
    return payload


def remove_leftovers(folder: Path) -> None:
    """Deletes half-written checkpoints of runs that were killed."""
    for path in folder.glob(f".{LAST}.*.part"):
        path.unlink(missing_ok=True)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a line "key: old -> new" for each difference of two dumped recipes. Raises InputError where the networks differ."""
    before, after = _flat(old), _flat(new)
    missing = "(none)"
    changes = {k: (before.get(k, missing), after.get(k, missing)) for k in sorted(before.keys() | after.keys())}
    changes = {k: pair for k, pair in changes.items() if pair[0] != pair[1]}
    lines = {k: f"{k}: {a} -> {b}" for k, (a, b) in changes.items()}
    fixed = [line for key, line in lines.items() if key.startswith(_FIXED) and not key.startswith(_FREE)]
    if fixed:
        raise InputError(
            f"the output folder holds a run of another network ({'; '.join(fixed)}): "
            "choose another --output, or --fresh to start anew there"
        )
    return list(lines.values())


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


class MovingAverage(AveragedModel):
    """An averaged copy of a module, in evaluation mode. `update_parameters(module)` is to be called after every step.

    The decay grows from 0.1 towards `decay`, so that short runs do not export their random start. The count of steps stays in the host's
    memory, and nothing that is computed from it goes to the device. PyTorch's own average moves it there at every step, which waits until
    the device has finished.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, use_buffers=True)
        self.decay = decay
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves this average a step towards the weights and buffers of `model`. Whole numbers, such as counts of batches, are copied."""
        steps = int(self.n_averaged)
        share = 1 - min(self.decay, (1 + steps) / (10 + steps)) if steps else 1.0
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for mine, new in zip(_tensors(self.module), _tensors(model), strict=True):
            if mine.is_floating_point():
                averaged.append(mine)
                current.append(new)
            else:
                mine.copy_(new)
        torch._foreach_lerp_(averaged, current, share)
        self.n_averaged += 1


def _tensors(module: nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())
