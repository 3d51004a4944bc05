"""Finds the gains of a trained model: by how much its driven openings must be exaggerated, so that results move as far as driving frames.

Pairs of frames of training clips are animated by landmarks, with each gain of a ladder, and the face in every result is measured. For
each movement, that gain is taken whose results come nearest to the driving frames. Beyond it, more movement costs more error.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from dagan.config import Gains
from dagan.data.batches import generator_for
from dagan.data.config import PairConfig
from dagan.data.sampling import PairSampler
from dagan.data.store import ClipDataset
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.landmarks import EXPRESSIONS, MOVEMENTS, Face, FaceLandmarker, Points, expressions, followed
from dagan.motion.openings import FaceKeypoints
from dagan.motion.transfer import transfer
from dagan.progress import Progress, silent
from dagan.weights.files import read_file, write_file

LADDER = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.4)  # These gains are tried.
STAGE = "ladders of gains"  # `Progress` is told of this stage.
_SEED = 20  # Pairs are drawn with this seed.


@dataclass(frozen=True)
class Calibration:
    """The gains that were found."""

    gains: Gains
    """The gains."""
    slopes: dict[str, tuple[float, float]]
    """For each movement how far results move with gains of 1, and with these; 1 is as far as driven."""
    pairs: int
    """The number of pairs that counted."""


def calibrate(engine: Engine, dataset: ClipDataset, pairs: int = 240, progress: Progress = silent) -> Calibration:
    """Finds gains for the engine's model from so many pairs of the dataset's training clips.

    Raises InputError for a model whose keypoints stand on no landmarks, and where no pair shows a face in both frames.
    """
    if not engine.face.landmarks:
        raise InputError(f"the keypoints of model {engine.name!r} stand on no landmarks: it has no gains")
    sampler = PairSampler(dataset, "train", "identity", PairConfig(expressive=0.5 if dataset.landmarks is not None else 0.0))
    numbers = sampler.draw(generator_for(_SEED, 0, 0, 0), pairs).numbers
    landmarker = FaceLandmarker()
    driven: list[Points] = []
    drawn: list[list[Points]] = [[] for _ in LADDER]
    for done, pair in enumerate(numbers):
        progress(STAGE, done, pairs)
        source, driving = dataset.store.gather(pair).permute(0, 2, 3, 1).contiguous().numpy()
        faces = [_face(landmarker, picture) for picture in (source, driving)]
        results = _drawn(engine, landmarker, source, driving, *faces) if None not in faces else None
        if results is None:
            continue
        rest = _read(faces[0])
        driven.append(_read(faces[1]) - rest)
        for rung, result in zip(drawn, results, strict=True):
            rung.append(result - rest)
    progress(STAGE, pairs, pairs)
    if not driven:
        where = f"{dataset.clips[0].path}{' or any other clip' if len(dataset.clips) > 1 else ''}"
        raise InputError(f"no pair of frames shows a face before and after it is drawn, in {where}: give clips with visible faces")
    return _chosen(np.stack(driven), [np.stack(rung) for rung in drawn])


def with_gains(model: Path, output: Path, gains: Gains) -> None:
    """Writes the model file `model` again as `output`, with these gains in its configuration. Its weights stay bit by bit the same."""
    config, card, tensors = read_file(model)
    write_file(output, replace(config, keypoints=replace(config.keypoints, gains=gains)), tensors, card)


def _drawn(
    engine: Engine, landmarker: FaceLandmarker, source: np.ndarray, driving: np.ndarray, at_rest: Face | None, moved: Face | None
) -> list[Points] | None:  # fmt: skip
    """Returns the expressions of the results with each gain of the ladder, or None where one of them shows no face."""
    encoded = engine.encode(source, engine.face.places(at_rest, engine.size))
    found = engine.face.put(engine.keypoints([driving]), [engine.face.places(moved, engine.size)])
    rows = []
    for gain in LADDER:
        face = FaceKeypoints(engine.face.landmarks, Gains(**{field.name: gain for field in fields(Gains)}))
        exaggerated = transfer(encoded.keypoints, found, found, relative=False, limit_motion=False, face=face)
        result = _face(landmarker, engine.render(encoded, exaggerated)[0])
        if result is None:
            return None
        rows.append(_read(result))
    return rows


def _chosen(driven: Points, drawn: list[Points]) -> Calibration:
    """Chooses gains. `driven` holds N x E differences to the source; `drawn` holds those of the results for each gain of the ladder."""
    best = {}
    for movement, numbers in MOVEMENTS.items():
        places = [EXPRESSIONS.index(number) for number in numbers]
        errors = [float(np.square(result[:, places] - driven[:, places]).mean()) for result in drawn]
        best[movement] = int(np.argmin(errors))
    slopes = {}
    for movement, rung in best.items():
        plain, exaggerated = (followed(driven, result).get(f"{movement}_slope", 0.0) for result in (drawn[0], drawn[rung]))
        slopes[movement] = (plain, exaggerated)
    return Calibration(Gains(**{movement: LADDER[rung] for movement, rung in best.items()}), slopes, len(driven))


def _face(landmarker: FaceLandmarker, picture: np.ndarray) -> Face | None:
    return next(iter(landmarker.detect(picture, thorough=False)), None)


def _read(face: Face | None) -> Points:
    assert face is not None
    return expressions(lambda point: face.landmarks[None, point, :2])[0]
