"""The animation job: it takes a source picture and something that drives it, writes a video, and reports what it did and needed.

It goes through three streams, one after the other. None of them holds more than a batch of pictures.
1. It looks for the face in the driving video, which gives a steady framing. Without cropping this is skipped.
2. It reads the motion: frames are cropped, and their keypoints are found, some hundred bytes a frame. The reference frame is found too.
3. It draws: keypoints are brought to the source, pictures are drawn, laid out and encoded, with the driving video's times and sound.
A motion file takes the place of the first two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from dagan.animate.animator import Animator
from dagan.animate.driving import MotionReader, check_fit, check_on_missing, frame_spans, is_motion_file, refuse_photo
from dagan.animate.dubbing import SourceVideo, part_of_video
from dagan.animate.finish import Finish, parse_size
from dagan.animate.layout import Cast, Layout, Marked, PasteBack, Plain, SideBySide, Tiles, photos_of
from dagan.animate.outputs import AnimateReport, Notices, Wanted, check_output, make_report, open_writer, write_report
from dagan.animate.pose import made_for, named_motion
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.framing import FaceFinder, Framing, crop
from dagan.media.images import SMALLEST_SIDE, is_video, read_image, shrunk
from dagan.media.landmarks import FaceLandmarker
from dagan.media.output import check_destination, check_distinct
from dagan.media.provenance import Provenance, check_credentials
from dagan.media.shots import FramingReport
from dagan.media.video import VideoReader, open_video
from dagan.media.view import View, read_ahead, view_still, view_video
from dagan.models.keypoints import Keypoints
from dagan.motion.file import MOTION_SUFFIXES, DrivingMotion, check_reference, nearest_layout, parse_reference, read_motion, save_motion
from dagan.motion.head import changes, check_parts
from dagan.motion.pose import MadeMotion
from dagan.motion.transfer import check_smooth, shaped
from dagan.progress import Progress, Warn, counted, silent, to_stderr
from dagan.stream import batched, on_workers

Drive = Callable[[Keypoints], np.ndarray]  # Draws results for N sets of driving keypoints.
LOOK, READ, DRAW = "finding the face", "reading the motion", "drawing"


@dataclass(frozen=True, kw_only=True)
class AnimateOptions:
    """How to animate."""

    crop: bool = True
    """Whether the face is found in both inputs; otherwise their middle is taken."""
    relative: bool = True
    """See `Animator`."""
    adapt_scale: bool = True
    """See `Animator`."""
    limit_motion: bool = True
    """See `Animator`."""
    reference: str | None = None
    """auto (the driving frame whose pose is most like the source's), first, or a number. None is auto, or what a motion file says."""
    side_by_side: bool = False
    """See `dagan.animate.layout`."""
    paste_back: bool = False
    """See `dagan.animate.layout`."""
    max_side: int = 1920
    """For pasting back, a larger photo is shrunk to this longer side in pixels: larger videos take long, and nothing plays them."""
    size: str | None = None
    """The side of the result in pixels, or photo for the source's own detail. None is the model's side, and photo for pasting back."""
    still_background: bool = False
    """See `Finish`."""
    save_motion: Path | None = None
    """A motion file to write too."""
    report: Path | None = None
    """A report to write too."""
    overwrite: bool = False
    frame_rate: Fraction | None = None
    """The frame rate of a folder of images; None is 25."""
    encoder: str | None = None
    """See the codec of `VideoWriter`."""
    on_missing: str = "hold"
    """What replaces driving frames without a face: hold (the nearest real motion), rest (the source's own pose) or error."""
    grid: bool = False
    """Whether many photos are animated as tiles of one picture: those of `also`, and the source or, where it is a folder, its photos."""
    also: tuple[Path, ...] = ()
    """Further photos of a grid."""
    show_driving: bool = False
    """Whether the first tile of a grid is the driving frame."""
    cutout: bool = False
    """See `Finish`."""
    still: int | None = None
    """The number of one frame, counted from 0, that is written as a picture in place of a video."""
    strip: int | None = None
    """So many frames, evenly spread, are written side by side as a picture in place of a video."""
    mark: bool = False
    """Whether a small mark that everybody sees is drawn into a corner."""
    credentials: tuple[Path, Path] | None = None
    """See `Provenance`."""
    keypoints: str = "auto"
    """See `Animator`. A motion file drives with the keypoints that are in it."""
    move: str = "all"
    """See `Animator`."""
    strength: float = 1.0
    """See `Animator`."""
    smooth: float = 0.0
    """How much noise is taken out of the motion, from 0 to 1 (see `dagan.motion.transfer`)."""
    loop: bool = False
    """Whether the end of the motion passes into its start, so that the result can be repeated."""


@dataclass(frozen=True)
class _Driving:
    """What the driving input gave: its motion and, for a video, the reader, where to look in it, and what was wrong with it."""

    motion: DrivingMotion
    reader: VideoReader | None = None
    view: View | None = None
    faces: FramingReport | None = None
    truncated: bool = False
    damaged: int = 0
    missing: int = 0


def animate(
    engine: Engine,
    source: Path,
    driving: Path,
    output: Path,
    options: AnimateOptions | None = None,
    progress: Progress = silent,
    warn: Warn = to_stderr,
) -> AnimateReport:
    """Animates the picture in `source` with a video, a folder of images or a motion file, and writes the video `output`.

    `engine` computes. Raises InputError for inputs, outputs and options that cannot work, before any long work where possible. Nothing is
    left behind then, and nothing when interrupted.
    """
    options = options or AnimateOptions()
    began = time.monotonic()
    notices = Notices(warn)
    check_animate(source, driving, output, options)
    source, *others = photos_of(source, options.also, options.grid)
    with ExitStack() as stack:
        made = named_motion(driving)
        opened = made or _open_driving(driving, options, stack)
        # Wrong choices are refused before the video is searched.
        engine.face.explicit(options.keypoints, engine.name)
        check_parts(options.move, engine.face, engine.name)
        landmarker = FaceLandmarker() if options.crop or not isinstance(opened, DrivingMotion) or opened.explicit else None
        dubbed, finish = None, _finish(options)
        if is_video(source):
            video = stack.enter_context(open_video(source, 25))
            dubbed = SourceVideo(
                engine, video, FaceLandmarker(), options.crop, options.keypoints, options.move, options.strength, finish, progress, notices
            )  # fmt: skip
            finish = Finish()  # The video finishes its own pictures.
        image = _source_image(source, options, notices) if dubbed is None else dubbed.rest
        finder = FaceFinder(landmarker) if options.crop and dubbed is None else None
        framing = view_still(image, finder, str(source), notices)
        face = crop(image, framing, engine.size)
        side = finish.side(framing, engine.size)
        driven = _motion(opened, driving, engine, face, landmarker, options, progress, notices)
        driven = replace(driven, motion=shaped(driven.motion, options.smooth, options.loop))
        layout: Layout = Plain(side)
        if dubbed is not None:
            layout = dubbed.layout
        elif options.side_by_side:
            layout = SideBySide(crop(image, framing, side), engine)
        elif options.paste_back:
            layout = PasteBack(image, framing)
        elif isinstance(finish.size, int) and side > framing.side and side > engine.size:
            notices(f"the face's square in {source} has {round(framing.side)} pixels a side: {side} show no more detail")
        if options.grid:
            layout = Tiles(1 + len(others), side, options.show_driving)
        if options.mark:
            layout = Marked(layout)

        def animator_of(image: np.ndarray, framing: Framing, reference: int | None) -> Animator:
            animator = Animator(
                engine, options.relative, options.adapt_scale, face_finder=FaceFinder(landmarker) if landmarker is not None else None,
                limit_motion=options.limit_motion and made is None and dubbed is None, strength=options.strength,
                keypoints="landmarks" if driven.motion.explicit else "learnt",
                move=options.move if dubbed is None else part_of_video(options.move),
                finish=finish if finish.size is None else replace(finish, size=side),
            )  # fmt: skip
            animator.set_source(image, framing=framing)
            reference = animator.nearest(driven.motion.value) if reference is None else reference
            animator.set_reference(driven.motion.keypoints([reference]))
            return animator

        animator = animator_of(image, framing, driven.motion.reference)
        # The reference frame was looked for with the first photo. Each other one has its own, unless one was named.
        named = None if made is None and options.reference in (None, "auto") else driven.motion.reference
        cast = [animator]
        for other in others:
            picture = read_image(other)
            cast.append(animator_of(picture, view_still(picture, finder, str(other), notices), named))
        damped = _damped(animator, driven.motion)
        drive = Cast(cast).drive if options.grid else animator.drive
        sound = _draw(output, engine, drive, driven, layout, dubbed, options, progress, notices)
    if options.save_motion is not None:
        save_motion(options.save_motion, driven.motion, options.overwrite)
    report = make_report(
        source, driving, output, engine, driven.motion, driven.faces, frames=len(_wanted(options).frames(len(driven.motion))),
        wall=time.monotonic() - began, warnings=notices.messages, sound=sound, relative=animator.relative, damped_frames=damped,
        frames_without_face=driven.missing, truncated=driven.truncated, damaged_parts=driven.damaged,
    )  # fmt: skip
    if options.report is not None:
        write_report(options.report, report, options.overwrite)
    return report


def _finish(options: AnimateOptions) -> Finish:
    """Returns how results become pictures. Results that are pasted back have the photo's detail and leave its rest in place."""
    size = parse_size(options.size)
    return Finish(
        size="photo" if options.paste_back and size is None else size,
        longest=options.max_side,
        hold_border=options.paste_back,
        still_background=options.still_background,
        cutout=options.cutout,
    )


def _wanted(options: AnimateOptions) -> Wanted:
    return Wanted(options.still, options.strip, options.cutout, options.encoder, options.overwrite)


def _provenance(engine: Engine, options: AnimateOptions) -> Provenance:
    """Returns what the output's marks say. Nothing leaves them out: whoever gets the file may know what it is."""
    composite = options.paste_back or options.side_by_side or options.still_background or options.show_driving
    return Provenance(engine.name, composite, options.credentials)


def _source_image(source: Path, options: AnimateOptions, warn: Warn) -> np.ndarray:
    """Reads the source picture. If it will be the output's, it is shrunk to the greatest size that is allowed."""
    image = read_image(source)
    if not options.paste_back:
        return image
    small = shrunk(image, options.max_side)
    if small is not image:
        sizes = [f"{picture.shape[1]} x {picture.shape[0]}" for picture in (image, small)]
        warn(f"{source} is {sizes[0]} pixels: the video is made at {sizes[1]} (--max-side {options.max_side})")
    return small


def check_animate(source: Path, driving: Path, output: Path, options: AnimateOptions) -> None:
    """Raises InputError for everything that can be refused early, without a model and without reading inputs to their end."""
    photos = photos_of(source, options.also, options.grid)
    check_distinct((output, options.save_motion, options.report), (*photos, driving))
    check_output(output, _wanted(options))
    if options.grid and (options.paste_back or options.side_by_side):
        raise InputError("--grid shows results as tiles: leave out --paste-back and --side-by-side")
    if options.show_driving and (not options.grid or options.cutout):
        raise InputError("--show-driving is for --grid without --alpha: ask for it, or leave --show-driving out")
    if options.cutout and (options.paste_back or options.side_by_side or options.still_background):
        raise InputError("--alpha leaves nothing but the person: leave out --paste-back, --side-by-side and --still-background")
    if options.save_motion is not None:
        check_destination(options.save_motion, "a motion", MOTION_SUFFIXES, options.overwrite)
    if options.report is not None:
        check_destination(options.report, "a report", (".json",), options.overwrite)
    if options.reference is not None:
        parse_reference(options.reference)
    check_on_missing(options.on_missing)
    changes(options.move, options.strength)  # This refuses a part or a strength that there is not.
    _finish(options)
    check_smooth(options.smooth)
    if options.credentials is not None:
        check_credentials(options.credentials, output)
    if options.max_side < SMALLEST_SIDE:
        raise InputError(f"--max-side is {options.max_side} pixels: must be at least {SMALLEST_SIDE}")
    if options.side_by_side and options.paste_back:
        raise InputError("--side-by-side and --paste-back give different pictures: choose one")
    for photo in photos:
        if is_video(photo):
            part_of_video(options.move)
            if options.side_by_side or options.still_background or options.cutout or options.grid or not options.relative:
                refused = "--side-by-side, --still-background, --alpha, --grid and --absolute"
                raise InputError(f"{photo} is a video: {refused} need a photo as SOURCE")
    refuse_photo(driving)
    if options.frame_rate is not None and driving.exists() and not driving.is_dir():
        raise InputError(f"--frame-rate is for a folder of images: {driving} has times of its own")
    if is_motion_file(driving) or named_motion(driving) is not None:
        if options.side_by_side or options.show_driving:
            option = "--side-by-side" if options.side_by_side else "--show-driving"
            raise InputError(f"{option} shows the driving frames, and {driving} holds none: give the video")
        if options.save_motion is not None and driving.exists():
            raise InputError(f"--save-motion has nothing to add: {driving} is a motion file already")


def _open_driving(driving: Path, options: AnimateOptions, stack: ExitStack) -> DrivingMotion | VideoReader:
    opened = read_motion(driving) if is_motion_file(driving) else stack.enter_context(open_video(driving, options.frame_rate or 25))
    reference = parse_reference(options.reference or "auto")
    if isinstance(opened, DrivingMotion) and reference is not None:
        check_reference(reference, len(opened))
    return opened


def _motion(
    opened: DrivingMotion | VideoReader | MadeMotion,
    path: Path,
    engine: Engine,
    source: np.ndarray,
    landmarker: FaceLandmarker | None,
    options: AnimateOptions,
    progress: Progress,
    warn: Warn,
) -> _Driving:
    """Returns the motion with its reference frame. A video is read once or twice for it."""
    asked = parse_reference(options.reference or "auto")
    if isinstance(opened, MadeMotion):
        return _Driving(made_for(opened, engine, source, FaceFinder(landmarker), options.keypoints))
    if isinstance(opened, DrivingMotion):
        if (warning := check_fit(opened, engine, path)) is not None:
            warn(warning)
        if options.reference == "auto":
            resting = engine.keypoints([source])
            if opened.explicit and landmarker is not None:
                resting = engine.face.put(resting, [engine.face.places(next(iter(landmarker.detect(source)), None), engine.size)])
            asked = nearest_layout(resting.value[0].numpy(), opened.value)
        return _Driving(opened if asked is None else opened.with_reference(asked))
    view, faces = view_video(opened, FaceFinder(landmarker) if options.crop else None, warn, progress, LOOK)
    reader = MotionReader(engine, opened, landmarker, options.crop, engine.face.explicit(options.keypoints, engine.name))
    on_missing = check_on_missing(options.on_missing)
    with closing(counted(read_ahead(opened, view, engine.size), progress, READ, opened.frame_count)) as frames:
        motion = reader.read(frames, source, reference=asked, relative=options.relative, on_missing=on_missing)
    if reader.missing:
        instead = "the nearest motion is held" if on_missing == "hold" else "the source rests"
        warn(f"{path}: no face in {reader.missing} of {len(motion)} frames: {instead} there")
    if (problem := opened.problem()) is not None:
        warn(problem)
    truncated, damaged = opened.truncated, opened.damaged  # These are of this pass, because a later one may stop early.
    return _Driving(motion, opened, view, faces, truncated, damaged, reader.missing)


def _damped(animator: Animator, motion: DrivingMotion) -> int:
    """Counts the frames in which the limit takes a tenth or more of some motion. Less is hardly seen."""
    parts = (motion.keypoints(slice(start, start + 1024)) for start in range(0, len(motion), 1024))
    return sum(int((animator.share_left(part) < 0.9).sum()) for part in parts) if animator.limit_motion else 0


def _draw(
    output: Path, engine: Engine, drive: Drive, driven: _Driving, layout: Layout, dubbed: SourceVideo | None, options: AnimateOptions,
    progress: Progress, warn: Warn,
) -> bool:  # fmt: skip
    """Computes and writes every frame. Returns whether sound went along."""
    motion, reader, wanted = driven.motion, driven.reader, _wanted(options)
    chosen = wanted.frames(len(motion))
    sound = reader.path if reader is not None and reader.has_audio else None
    drawn = _frames(engine, drive, driven, layout, chosen)
    if dubbed is not None:
        drawn = dubbed.frames(motion, options.adapt_scale, layout, chosen)
    with (
        closing(counted(drawn, progress, DRAW, len(chosen))) as frames,
        open_writer(output, wanted, layout.width, layout.height, motion, sound, _provenance(engine, options), warn) as writer,
    ):
        spans = list(frame_spans(motion))
        for frame, index in zip(frames, chosen, strict=True):
            writer.write(frame, *spans[index])
    return writer.has_sound


def _frames(engine: Engine, drive: Drive, driven: _Driving, layout: Layout, chosen: Sequence[int]) -> Generator[np.ndarray]:
    """Yields the output's frames, a batch at a time: those of the chosen numbers. They are computed while earlier ones are written."""
    motion, size = driven.motion, engine.batch_size
    pictures: Iterator[list[np.ndarray]] | None = None
    if layout.wants_driving and driven.reader is not None and driven.view is not None:
        shown, seen = frozenset(chosen), read_ahead(driven.reader, driven.view, engine.size)
        pictures = batched((picture for i, (_, picture) in enumerate(seen) if i in shown), size)
    batches = (motion.keypoints(part) for part in batched(chosen, size))
    with closing(on_workers(engine.workers, drive, batches)) as drawn:
        for results in drawn:
            yield from layout.compose(results, next(pictures) if pictures is not None else ())
