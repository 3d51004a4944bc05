"""`dagan demo`: animates the portrait that ships in the package with the motion that ships beside it."""

from __future__ import annotations

from pathlib import Path

from dagan.commands.animate import AnimateOptions, animate_file

EXAMPLES = Path(__file__).parents[1] / "examples"
PORTRAIT = EXAMPLES / "astronaut.png"
MOTION = EXAMPLES / "speech.motion"


def animate_example(output: Path, overwrite: bool = False) -> None:
    """Writes the animated portrait to `output` and prints one line about it.

    The model is lite-256, because the motion holds keypoints that this model found. Raises InputError when `output` exists and
    `overwrite` is false, or when it has no name of a video or animated picture.
    """
    animate_file(PORTRAIT, MOTION, output, AnimateOptions(model="lite-256", overwrite=overwrite))
