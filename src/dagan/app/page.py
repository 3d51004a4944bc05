"""The page as a whole: its tabs, its looks, and the calls that programs may make (docs/app.md#from-a-program)."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from dagan.app.studio import MOTIONS, Studio
from dagan.app.tabs import (
    MOVES,
    SHOWN,
    animate_tab,
    depth_tab,
    mesh_field,
    photo_field,
    pose_tab,
    sentence_of,
    session_of,
    video_field,
    wish_of,
)
from dagan.errors import InputError
from dagan.motion.pose import RANGES, Pose

TITLE = "dagan: a portrait that moves"
_STATIC = Path(__file__).parent / "static"
HEADER = (
    "<h1>dagan</h1><p>One portrait and a driving video in, a talking head out. "
    "Everything is computed on the machine that runs this page.</p>"
)


def build_page(studio: Studio) -> gr.Blocks:
    """Returns the page, with every button connected to the studio."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(HEADER, container=False, elem_id="header")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Animate", id="animate"):
                animate_tab(studio)
            with gr.Tab("Live", id="live"):
                gr.HTML('<iframe id="live-frame" src="live" title="Live camera" allow="camera" loading="lazy"></iframe>', container=False)
            with gr.Tab("Pose", id="pose"):
                pose_tab(studio)
            with gr.Tab("Depth", id="depth"):
                depth_tab(studio)
            with gr.Tab("About", id="about"):
                gr.Markdown((_STATIC / "about.md").read_text(encoding="utf-8"), elem_id="about")
        _calls(studio)

        def left(request: gr.Request) -> None:
            studio.leave(session_of(request))

        page.unload(left)
    return page


def _calls(studio: Studio) -> None:
    """Declares what programs may call, with the names and types of their arguments."""
    with gr.Row(visible=False):
        photo, video = photo_field(studio.folder, label="photo"), video_field(studio.folder, label="video")
        motion = gr.Dropdown([*MOTIONS], value=next(iter(MOTIONS)), label="motion")
        shown = gr.Dropdown(list(SHOWN.values()), value=next(iter(SHOWN.values())), label="show")
        crop = gr.Checkbox(True, label="crop")
        move = gr.Dropdown(list(MOVES.values()), value=next(iter(MOVES.values())), label="move")
        strength = gr.Number(1.0, label="strength")
        numbers = {name: gr.Number(getattr(Pose(), name), label=name) for name in RANGES}
        posed = photo_field(studio.folder, label="posed")
        result, colours = video_field(studio.folder, label="result"), photo_field(studio.folder, label="colours")
        mesh = mesh_field(studio.folder, label="mesh")
        button = gr.Button()

        async def animate(
            request: gr.Request, photo: str, video: str | None = None, motion: str = motion.value, show: str = shown.value,
            crop: bool = True, move: str = move.value, strength: float = 1.0,
        ) -> str:  # fmt: skip
            """Animates a photo with a video, or with a bundled motion where no video is given, and returns a video."""
            try:
                wish = wish_of(photo, video, motion, show, crop=crop, move=move, strength=strength)
                steps = [step async for step in studio.animate(session_of(request), wish)]
            except InputError as error:
                raise gr.Error(sentence_of(error), print_exception=False) from None
            if steps[-1].result is None:
                raise gr.Error("The job was stopped.", print_exception=False)
            return steps[-1].result.output

        def depth(photo: str, request: gr.Request) -> tuple[str, str]:
            """Measures the depth of a photo's face, and returns a picture of its depth map and a mesh (.glb)."""
            try:
                picture, solid = studio.depth(session_of(request), Path(photo))
            except InputError as error:
                raise gr.Error(sentence_of(error), print_exception=False) from None
            return str(picture), str(solid)

        def pose(
            request: gr.Request, photo: str, yaw: float = 0, pitch: float = 0, roll: float = 0, zoom: float = 1, shift_x: float = 0,
            shift_y: float = 0, mouth: float = 0, smile: float = 0, lids: float = 0, gaze_x: float = 0, gaze_y: float = 0,
        ) -> str:  # fmt: skip
            """Draws a photo in a pose that is set by hand, and returns a picture."""
            try:
                wanted = Pose(
                    yaw=yaw, pitch=pitch, roll=roll, zoom=zoom, shift_x=shift_x, shift_y=shift_y, mouth=mouth, smile=smile, lids=lids,
                    gaze_x=gaze_x, gaze_y=gaze_y,
                )  # fmt: skip
                return str(studio.pose_file(session_of(request), Path(photo), wanted))
            except InputError as error:
                raise gr.Error(sentence_of(error), print_exception=False) from None

        button.click(pose, [photo, *numbers.values()], posed, api_name="pose", concurrency_limit=2)
        button.click(animate, [photo, video, motion, shown, crop, move, strength], result, api_name="animate", concurrency_limit=None)
        button.click(depth, [photo], [colours, mesh], api_name="depth", concurrency_limit=2)
