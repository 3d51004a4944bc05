"""The portrait and the motion that come with the package (their sources are in NOTICE.md beside them)."""

from pathlib import Path

PORTRAIT = Path(__file__).parent / "astronaut.png"
MOTION = Path(__file__).parent / "speech.motion"
