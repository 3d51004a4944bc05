"""What the page does when a button is pressed: it checks what came, opens a job for it, and hands out what came of it.

There is one engine for all visitors. Long jobs take turns; a pose, a depth map and the live camera are short and do not wait for them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from dagan.animate.animator import Animator
from dagan.animate.outputs import AnimateReport
from dagan.animate.pipeline import DRAW, LOOK, READ, AnimateOptions, animate
from dagan.app.runs import Run, Step, Turns, watched
from dagan.app.uploads import LIMITS, PrivateFolder, UploadLimits, check_driving, check_photo, own_names
from dagan.depth import depth_mesh, write_glb
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.examples import MOTION
from dagan.media.colour import colour_table, colourise, robust_range
from dagan.media.framing import FaceFinder, crop
from dagan.media.images import shrunk, write_image
from dagan.media.provenance import Provenance
from dagan.media.view import view_still
from dagan.motion.pose import MOTIONS as MADE_MOTIONS
from dagan.motion.pose import Pose
from dagan.progress import Progress

MOTIONS = {"Speech": MOTION, **{name.capitalize(): Path(name) for name in MADE_MOTIONS}}
_SHARES = {LOOK: 0.1, READ: 0.3, DRAW: 0.6}
_PHOTO_SIDE = 1920  # Pixels. Larger photos are shrunk before their face is found, which then is found as well and faster.
_MOST_POSED = 8  # So many posed portraits are kept ready.


@dataclass(frozen=True)
class Wish:
    """What a visitor wants to be animated, and how."""

    photo: Path
    """The photo."""
    video: Path | None = None
    """The driving video; None takes the motion."""
    motion: str = next(iter(MOTIONS))
    """The name of a bundled motion."""
    options: AnimateOptions = field(default_factory=AnimateOptions)
    """See `AnimateOptions`."""


class Studio:
    """One engine, one folder and one queue for all visitors of a page.

    Args:
        at_once: So many long jobs run at the same time.
    """

    def __init__(self, engine: Engine, folder: PrivateFolder, limits: UploadLimits = LIMITS, at_once: int = 1) -> None:
        self.engine, self.folder, self.limits = engine, folder, limits
        self.turns = Turns(at_once)
        self._runs: defaultdict[str, set[Run[AnimateReport]]] = defaultdict(set)
        self._posed: OrderedDict[str, Animator] = OrderedDict()
        self._lock = Lock()

    def stop(self, session: str) -> bool:
        """Stops the jobs of a session. Returns whether there were any."""
        runs = self._runs.get(session, set())
        for run in runs:
            run.stop()
        return bool(runs)

    def leave(self, session: str) -> None:
        """Ends a session: its jobs stop and its files are removed."""
        self.stop(session)
        self._runs.pop(session, None)
        self.folder.release(session)

    async def animate(self, session: str, wish: Wish) -> AsyncIterator[Step[AnimateReport]]:
        """Animates in the visitor's turn, and yields what is seen of the job; the last step has its report.

        Raises InputError with one sentence for what cannot be animated.
        """
        photo = self.upload(session, wish.photo)
        driving = MOTIONS.get(wish.motion) if wish.video is None else self.upload(session, wish.video)
        if driving is None:
            raise InputError(f"there is no motion {wish.motion!r}: choose one of {', '.join(MOTIONS)}")
        output = self.folder.new_file(session, "dagan.mp4")

        def job(progress: Progress) -> AnimateReport:
            # Decoding an upload may take long too, so it is checked in the visitor's turn.
            check_photo(photo, self.limits)
            if wish.video is not None:
                check_driving(driving, self.limits)
            return animate(self.engine, photo, driving, output, wish.options, progress, lambda _: None)

        run = Run(job, {DRAW: 1.0} if wish.video is None else _SHARES, self.limits.video_frames, self._too_many)
        runs = self._runs[session]
        runs.add(run)
        try:
            async for step in watched(run, self.turns, session):
                yield step
        except InputError as error:
            raise InputError(own_names(str(error), photo, driving)) from None
        finally:
            runs.discard(run)
            if not output.exists():
                self.folder.forget(session, output)

    def upload(self, session: str, path: Path) -> Path:
        """Returns the place of an upload, which the session then holds. Raises InputError where the path is none."""
        place = self.folder.inside(path)
        self.folder.hold(session, place)
        return place

    def check_photo(self, session: str, path: Path) -> None:
        """Raises InputError, with one sentence, where an upload is no photo that can be used."""
        check_photo(self.upload(session, path), self.limits)

    def check_video(self, session: str, path: Path) -> None:
        """Raises InputError, with one sentence, where an upload is no video that can drive."""
        check_driving(self.upload(session, path), self.limits)

    def square(self, session: str, photo: Path) -> np.ndarray:
        """Returns the square round the face of a photo, as the model sees it, S x S x 3 uint8. Raises InputError for a bad photo."""
        place = self.upload(session, photo)
        picture = shrunk(check_photo(place, self.limits), _PHOTO_SIDE)
        return crop(picture, view_still(picture, FaceFinder(), place.name, lambda _: None), self.engine.size)

    def depth(self, session: str, photo: Path) -> tuple[Path, Path]:
        """Returns files with a photo's depth map in colours (.png), and with its face as a coloured mesh (.glb).

        Raises InputError for a bad photo, and for a model without a depth network.
        """
        if not self.engine.has_depth:
            raise InputError(f"model {self.engine.name!r} has no depth network: start the page with another")
        square = self.square(session, photo)
        disparity = self.engine.disparity([square])[0]
        mesh = self.folder.new_file(session, "depth.glb")
        write_glb(mesh, depth_mesh(disparity, self.engine.depth_range), square)
        colours = self.folder.new_file(session, "depth.png")
        write_image(colours, colourise(disparity, *robust_range(disparity), colour_table()))
        return colours, mesh

    def pose(self, session: str, photo: Path, pose: Pose) -> tuple[np.ndarray, list[str]]:
        """Draws a photo in a pose, S x S x 3 uint8. Returns it with a sentence for each turn that was held back.

        Raises InputError for a bad photo, and for what the model cannot move.
        """
        animator = self._posing(session, photo)
        return animator.pose_batch([pose])[0], animator.posed.damped(pose)

    def pose_file(self, session: str, photo: Path, pose: Pose) -> Path:
        """Does as `pose` and returns the file of the picture (.png)."""
        picture = self.folder.new_file(session, "pose.png")
        write_image(picture, self.pose(session, photo, pose)[0], provenance=Provenance(self.engine.name))
        return picture

    def _posing(self, session: str, photo: Path) -> Animator:
        """Returns an animator with the photo as its source. It is kept, so that moving a slider draws at once."""
        place = self.upload(session, photo)
        key = hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else ""
        with self._lock:
            animator = self._posed.pop(key, None)
            if animator is None:
                animator = Animator(self.engine)
                animator.set_source(self.square(session, place))
                animator.posed  # noqa: B018 (it finds the face and its relief, which is done once)
            self._posed[key] = animator
            while len(self._posed) > _MOST_POSED:
                self._posed.popitem(last=False)
        return animator

    def _too_many(self, done: int) -> InputError:
        return InputError(f"the video has {done} frames and goes on: a video may have {self.limits.video_frames}")
