"""Writes a run's figures and pictures to TensorBoard, a JSON-lines file, image files and the terminal.

Pictures show depth in colours and keypoints as dots, in rows and columns.

Legend: n samples, K keypoints, H W image.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor
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
