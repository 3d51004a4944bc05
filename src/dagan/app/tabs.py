"""The tabs of the page: what they say, their fields and buttons, and what each button does.

What the page says of a job and of what went wrong are short pieces of HTML that screen readers announce. The fields for photos, videos and
meshes are Gradio's, such that files stay as they were sent and where they are, and come from uploads alone.
"""

from __future__ import annotations

import base64
import html
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np

from dagan.animate.outputs import AnimateReport
from dagan.animate.pipeline import AnimateOptions
from dagan.app.runs import Step
from dagan.app.socket import encode_result
from dagan.app.studio import MOTIONS, Studio, Wish
from dagan.app.uploads import PrivateFolder
from dagan.errors import InputError
from dagan.examples import PORTRAIT
from dagan.motion.head import MOST_STRENGTH
from dagan.motion.pose import RANGES, Pose


def sentence_of(error: Exception) -> str:
    """Returns the sentence of an error as it is shown: it begins with a capital letter and ends with a full stop."""
    text = str(error).strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def status(text: str, problem: bool = False) -> str:
    """Returns the line below the result. A problem is announced at once."""
    role = "alert" if problem else "status"
    return f'<p class="dagan-status{" problem" if problem else ""}" role="{role}">{html.escape(text)}</p>'


def progress(step: Step[AnimateReport]) -> str:
    """Returns the line and the bar of a job that waits or runs."""
    if step.before is not None:
        waiting = "Your job is next." if step.before == 0 else f"{step.before} {'job comes' if step.before == 1 else 'jobs come'} first."
        return status(waiting)
    left = "" if step.seconds_left is None else f", about {_seconds(step.seconds_left)} left"
    words = step.stage or "beginning"
    percent = round(100 * step.done)
    bar = f'<progress max="100" value="{percent}" aria-label="Progress of the job">{percent} %</progress>'
    # Screen readers are told of the stages alone, because a figure that changes several times a second would drown everything else.
    return (
        f'<p class="dagan-status"><span role="status">{html.escape(words[:1].upper() + words[1:])}</span>'
        f'<span aria-hidden="true">: {percent} %{left}</span></p>{bar}'
    )


def _seconds(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} minutes"


def summary(report: AnimateReport) -> str:
    """Returns what is said of a finished video, with what the user should know about it."""
    sound = ", with sound" if report.sound else ""
    words = [f"{report.frames} frames, {report.seconds:.1f} s{sound}; made in {report.wall_seconds:.1f} s."]
    if report.frames_without_face:
        words.append(f"{report.frames_without_face} frames of the video show no face.")
    if report.several_faces:
        words.append("The video shows several faces: the largest was followed.")
    if report.truncated:
        words.append("The video is cut off.")
    return " ".join(words)


def picture_of(picture: np.ndarray | None, model: str) -> str:
    """Returns a picture that a model drew, H x W x 3 uint8, as part of the page itself, so that no file is left behind.

    None gives an empty frame.
    """
    if picture is None:
        return '<div class="dagan-picture"></div>'
    address = f"data:image/jpeg;base64,{base64.b64encode(encode_result(picture, model)).decode('ascii')}"
    return f'<img class="dagan-picture" alt="The posed photo" src="{address}">'


_FROM_ELSEWHERE = "an address is no upload: save the file and choose it on your own machine"
C = TypeVar("C", bound=gr.components.Component)


def kept(field: C, folder: PrivateFolder) -> C:
    """Makes a field hand on the path of an upload as it is, and leave files of the private folder where they are. Returns the field.

    By itself it would decode, convert and copy files. The jobs' own readers decode, and a copy would be one more file to remove. An
    address in place of a file is refused, because it would be fetched.
    """
    move = field.async_move_resource_to_block_cache

    async def stay(path: Any) -> str | None:
        if str(path).startswith(("http://", "https://")):
            raise gr.Error(_FROM_ELSEWHERE, print_exception=False)
        if path is not None and Path(path).resolve().is_relative_to(folder.path):
            return str(path)
        return await move(path)

    def own_path(payload: Any) -> str | None:
        return None if payload is None else str(payload.path)

    # A class of our own would be drawn by the same means, but Gradio writes a file beside the module of every such class.
    vars(field).update(async_move_resource_to_block_cache=stay, preprocess=own_path)
    return field


def photo_field(folder: PrivateFolder, **settings: Any) -> gr.Image:
    """Returns a field for a photo: chosen, dropped, pasted or taken with the webcam."""
    usual: dict[str, Any] = {"sources": ["upload", "webcam", "clipboard"], "height": 300, "webcam_options": gr.WebcamOptions(mirror=False)}
    return kept(gr.Image(type="filepath", **(usual | settings)), folder)


def video_field(folder: PrivateFolder, **settings: Any) -> gr.Video:
    """Returns a field for a video: chosen, dropped or recorded with the webcam."""
    usual: dict[str, Any] = {"sources": ["upload", "webcam"], "height": 300, "webcam_options": gr.WebcamOptions(mirror=False)}
    return kept(gr.Video(include_audio=True, **(usual | settings)), folder)


def mesh_field(folder: PrivateFolder, **settings: Any) -> gr.Model3D:
    """Returns a field for a mesh that can be turned."""
    return kept(gr.Model3D(interactive=False, **settings), folder)


OWN_VIDEO = "My own video"
SHOWN = {"The portrait alone": "portrait", "Photo, video, depth and result side by side": "side by side", "The whole photo": "whole photo"}
MOVES = {
    "Head and face": "all", "The face alone, the head stays": "expression", "The head alone, the face stays": "pose",
    "The mouth alone": "mouth", "The eyes alone": "eyes",
}  # fmt: skip
MISSING = {"Hold the last movement": "hold", "Let the portrait rest": "rest", "Refuse the video": "error"}
FAULT = "This went wrong inside the program: its terminal says more."
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}


def session_of(request: gr.Request) -> str:
    """Returns the name of a visitor's session. Programs that give none are told apart by nothing."""
    return request.session_hash or "nobody"


def wish_of(photo: str | None, video: str | None, motion: str, show: str, **choices: Any) -> Wish:
    """Returns what to animate and how. Raises InputError where there is no photo."""
    if not photo:
        raise InputError("there is no photo: choose one, or take one with the webcam")
    options = AnimateOptions(side_by_side=show == "side by side", paste_back=show == "whole photo", **choices)
    return Wish(Path(photo), None if video is None else Path(video), motion, options)


def animate_tab(studio: Studio) -> None:
    """Makes the tab that animates a photo."""
    with gr.Row(equal_height=False):
        with gr.Column(min_width=260):
            photo = photo_field(studio.folder, value=str(PORTRAIT), label="Photo", elem_id="animate-photo")
        with gr.Column(min_width=260):
            motion = gr.Radio([*MOTIONS, OWN_VIDEO], value=next(iter(MOTIONS)), label="What moves it", elem_id="motion")
            video = video_field(studio.folder, label=OWN_VIDEO, elem_id="video")
        with gr.Column(min_width=260):
            result = video_field(
                studio.folder, label="Result", interactive=False, autoplay=True, loop=True, buttons=["download"], elem_id="result"
            )  # fmt: skip
            line = gr.HTML(status("Press Animate: the portrait and the movement that come with the program are chosen."), elem_id="status")
            with gr.Row():
                go = gr.Button("Animate", variant="primary", elem_id="go")
                stop = gr.Button("Stop", interactive=False, elem_id="stop")
    with gr.Accordion("More choices", open=False, elem_id="choices"):
        shown = gr.Radio(list(SHOWN), value=next(iter(SHOWN)), label="What the result shows")
        move = gr.Radio(list(MOVES), value=next(iter(MOVES)), label="What moves in the photo", elem_id="move")
        strength = gr.Slider(0, MOST_STRENGTH, value=1, step=0.05, label="Strength of the movement: 1 is as driven", elem_id="strength")
        missing = gr.Radio(list(MISSING), value=next(iter(MISSING)), label="Where the video shows no face")
        crop = gr.Checkbox(True, label="Find the face in photo and video, and cut it out")
        relative = gr.Checkbox(True, label="Take over changes of pose and expression, not the pose itself")
        adapt = gr.Checkbox(True, label="Fit the size of movements to the face in the photo")
        limit = gr.Checkbox(True, label="Damp movements that go farther than can be drawn well")
        mark = gr.Checkbox(False, label="Draw a small mark into a corner, which says that the video is synthetic")
    busy = gr.update(interactive=False), gr.update(interactive=True)
    idle = gr.update(interactive=True), gr.update(interactive=False)

    async def run(
        photo: str | None, motion: str, video: str | None, shown: str, move: str, strength: float, missing: str, crop: bool,
        relative: bool, adapt: bool, limit: bool, mark: bool, request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:  # fmt: skip
        yield gr.skip(), status("The job is being prepared."), *busy
        try:
            if motion == OWN_VIDEO and video is None:
                raise InputError("there is no video: choose one, record one with the webcam, or choose a movement above")
            wish = wish_of(
                photo, video if motion == OWN_VIDEO else None, motion, SHOWN[shown], move=MOVES[move], strength=strength,
                on_missing=MISSING[missing], crop=crop, relative=relative, adapt_scale=adapt, limit_motion=limit, mark=mark,
            )  # fmt: skip
            async for step in studio.animate(session_of(request), wish):
                if step.stopped:
                    yield gr.skip(), status("Stopped."), *idle
                elif step.result is not None:
                    yield step.result.output, status(summary(step.result)), *idle
                else:
                    yield gr.skip(), progress(step), gr.skip(), gr.skip()
        except InputError as error:
            yield gr.skip(), status(sentence_of(error), problem=True), *idle
        except Exception:
            yield gr.skip(), status(FAULT, problem=True), *idle
            raise

    def halt(request: gr.Request) -> None:
        studio.stop(session_of(request))

    def check(path: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Looks at a video as soon as it is there. A bad one is taken out again, and a sentence says why."""
        if path is None:
            return gr.skip(), gr.skip(), gr.skip()
        try:
            studio.check_video(session_of(request), Path(path))
        except InputError as error:
            return None, gr.skip(), status(sentence_of(error), problem=True)
        return gr.skip(), OWN_VIDEO, status("The video is here: press Animate.")

    choices = [photo, motion, video, shown, move, strength, missing, crop, relative, adapt, limit, mark]
    go.click(run, choices, [result, line, go, stop], trigger_mode="once", **_PRIVATE)
    stop.click(halt, None, None, **_PRIVATE)
    for arrives in (video.upload, video.stop_recording):
        arrives(check, video, [video, motion, line], trigger_mode="always_last", **_PRIVATE)
    _checked(studio, photo, line, "The photo is here: press Animate.")


# What each slider is called, and the number that stands for how finely it can be set.
_TURNS = {"yaw": ("Turn to the right", 1), "pitch": ("Look up", 1), "roll": ("Lean clockwise", 1)}
_FACE = {
    "mouth": ("Open the mouth", 0.05), "smile": ("Smile", 0.05), "lids": ("Open the eyes", 0.05), "gaze_x": ("Eyes to the right", 0.05),
    "gaze_y": ("Eyes up", 0.05),
}  # fmt: skip
_PLACE = {"zoom": ("Size", 0.02), "shift_x": ("Move to the right", 0.01), "shift_y": ("Move up", 0.01)}


def pose_tab(studio: Studio) -> None:
    """Makes the tab that poses a photo by hand."""
    at_rest = Pose()
    sliders: dict[str, gr.Slider] = {}

    def add(names: dict[str, tuple[str, float]]) -> None:
        for name, (label, step) in names.items():
            low, high = RANGES[name]
            sliders[name] = gr.Slider(low, high, value=getattr(at_rest, name), step=step, label=label, elem_id=f"pose-{name}")

    with gr.Row(equal_height=False):
        with gr.Column(min_width=260):
            photo = photo_field(studio.folder, value=str(PORTRAIT), label="Photo", elem_id="pose-photo")
            drawn = gr.HTML(picture_of(None, studio.engine.name), elem_id="pose-result", container=False)
            line = gr.HTML(status("Move a slider: the photo follows."), elem_id="pose-line")
        with gr.Column(min_width=260):
            add(_TURNS | _FACE)
        with gr.Column(min_width=260):
            add(_PLACE)
            back = gr.Button("Back to the photo", elem_id="pose-back")

    def run(request: gr.Request, photo: str | None, *values: float) -> tuple[Any, str]:
        try:
            if photo is None:
                raise InputError("there is no photo: choose one, or take one with the webcam")
            pose = Pose(**dict(zip(sliders, values, strict=True)))
            picture, held = studio.pose(session_of(request), Path(photo), pose)
        except InputError as error:
            return gr.skip(), status(sentence_of(error), problem=True)
        return picture_of(picture, studio.engine.name), status(" ".join(sentence_of(InputError(sentence)) for sentence in held))

    order = list(sliders.values())
    for slider in order:
        slider.change(run, [photo, *order], [drawn, line], trigger_mode="always_last", **_PRIVATE)
    back.click(lambda: [getattr(at_rest, name) for name in sliders], None, order, **_PRIVATE)
    _checked(studio, photo, line, "The photo is here: move a slider.")


def depth_tab(studio: Studio) -> None:
    """Makes the tab that measures depth."""
    with gr.Row(equal_height=False):
        with gr.Column(min_width=260):
            photo = photo_field(studio.folder, value=str(PORTRAIT), label="Photo", elem_id="depth-photo")
            go = gr.Button("Measure depth", variant="primary", elem_id="depth-go")
            line = gr.HTML(status("Near is bright, far is dark. The mesh can be turned with the mouse, a finger or the arrow keys."))
        with gr.Column(min_width=260):
            colours = photo_field(
                studio.folder, label="Depth map", interactive=False, elem_id="depth-map", buttons=["download", "fullscreen"]
            )  # fmt: skip
        with gr.Column(min_width=260):
            mesh = mesh_field(
                studio.folder, label="Portrait as a mesh", height=360, elem_id="depth-mesh", clear_color=(0.5, 0.5, 0.5, 1.0),
                camera_position=(90, 90, None),
            )  # fmt: skip

    def run(photo: str | None, request: gr.Request) -> tuple[Any, ...]:
        try:
            if photo is None:
                raise InputError("there is no photo: choose one, or take one with the webcam")
            picture, solid = studio.depth(session_of(request), Path(photo))
        except InputError as error:
            return gr.skip(), gr.skip(), status(sentence_of(error), problem=True)
        return str(picture), str(solid), status("Turn the mesh with the mouse, a finger or the arrow keys.")

    go.click(run, photo, [colours, mesh, line], **{**_PRIVATE, "concurrency_limit": 2})
    _checked(studio, photo, line, "The photo is here: press Measure depth.")


def _checked(studio: Studio, photo: gr.Image, line: gr.HTML, good: str) -> None:
    """Looks at a photo as soon as it is there. A bad one is taken out again, and a sentence says why."""

    def check(path: str | None, request: gr.Request) -> tuple[Any, str]:
        if path is None:
            return gr.skip(), status("")
        try:
            studio.check_photo(session_of(request), Path(path))
        except InputError as error:
            return None, status(sentence_of(error), problem=True)
        return gr.skip(), status(good)

    photo.upload(check, photo, [photo, line], trigger_mode="always_last", **_PRIVATE)
