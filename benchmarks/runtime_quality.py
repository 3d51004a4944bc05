"""Quality of a model in every runtime and precision: reconstruction of the same clips, and the difference to float32 PyTorch.

Run: python benchmarks/runtime_quality.py CLIPS [--hold-out 0.1] [--every 10] [--clips 8]
     [--with FOLDER ...]   (FOLDER: an exported folder to measure too, for example an int8 one)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from runtimes import open_all

from dagan.data.clips import clips_for
from dagan.evaluate.animation.measure import measure_pair
from dagan.evaluate.animation.methods import CopyMethod, Job, Method, ModelMethod, Renderer
from dagan.evaluate.animation.pairs import Image, self_pairs
from dagan.evaluate.animation.rulers import RulerFiles, Rulers, Settings, catalogue
from dagan.evaluate.records import COPY, Evaluation
from dagan.evaluate.report.statistics import means

_SHOWN = {"l1": "L1", "lpips": "LPIPS", "akd": "landmarks, px at 256"}


class Kept(ModelMethod):
    """An engine as a method; keeps the pictures that it makes."""

    def begin(self, job: Job) -> Renderer:
        """See Method."""
        self.pictures: list[Image] = getattr(self, "pictures", [])
        return _Keeper(super().begin(job), self.pictures)


class _Keeper:
    def __init__(self, renderer: Renderer, pictures: list[Image]) -> None:
        self._renderer, self._pictures = renderer, pictures
        self.problem, self.notices = renderer.problem, renderer.notices

    def render(self, numbers: Sequence[int], driving: Sequence[Image]) -> list[Image | None]:
        """See Renderer."""
        results = self._renderer.render(numbers, driving)
        self._pictures.extend(picture for picture in results if picture is not None)
        return results


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="lite-256")
    parser.add_argument("--hold-out", type=float, default=0.0)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--with", dest="folders", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    clips = clips_for(options.folder, options.hold_out)
    clips = [clips[i] for i in np.linspace(0, len(clips) - 1, min(len(clips), options.clips)).round().astype(int)]
    engines = {label: Kept(engine) for label, engine in open_all(options.model, options.folders, 4)}
    files = RulerFiles()
    settings = Settings(protocol="reconstruction", every=options.every, size=next(iter(engines.values())).engine.size)
    methods: dict[str, Method] = {**engines, COPY: CopyMethod()}
    rulers = Rulers(files, settings)
    scores = [found.scores for pair in self_pairs(clips) for found in measure_pair(pair, methods, rulers, settings).methods.values()]
    for score in scores:
        if score.problem is not None:
            print(f"{score.pair}, {score.method}: {score.problem}")
    metrics = catalogue(files, settings)
    found = means(Evaluation(protocol="reconstruction", metrics=metrics, methods=tuple(methods), scores=tuple(scores)))
    exact = np.stack(next(iter(engines.values())).pictures).astype(np.int16)  # float32 PyTorch comes first
    shown = {key: title for key, title in _SHOWN.items() if found.get(key)}
    table = Table("runtime", *shown.values(), "mean /255", "worst frame's mean", title=f"{len(clips)} clips, ratios to the copy")
    for label, method in engines.items():
        gaps = np.abs(np.stack(method.pictures) - exact).mean((1, 2, 3))
        values = [f"{found[key][label]:.4f} ({found[key][label] / found[key][COPY]:.4f})" for key in shown]
        table.add_row(label, *values, f"{gaps.mean():.3f}", f"{gaps.max():.3f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
