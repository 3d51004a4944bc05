"""The page as a whole: its tabs, its looks, and the calls that programs may make (docs/app.md#from-a-program)."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from dagan.app.components import mesh_field, photo_field, video_field
from dagan.app.studio import MOTIONS, Studio
from dagan.app.tabs import SHOWN, animate_tab, depth_tab, session_of, wish_of
from dagan.app.words import sentence_of
from dagan.errors import InputError

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
        result, colours = video_field(studio.folder, label="result"), photo_field(studio.folder, label="colours")
        mesh = mesh_field(studio.folder, label="mesh")
        button = gr.Button()

        async def animate(
            request: gr.Request, photo: str, video: str | None = None, motion: str = motion.value, show: str = shown.value,
            crop: bool = True,
        ) -> str:  # fmt: skip
            """Animates a photo with a video, or with a bundled motion where no video is given, and returns a video."""
            try:
                steps = [step async for step in studio.animate(session_of(request), wish_of(photo, video, motion, show, crop=crop))]
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

        button.click(animate, [photo, video, motion, shown, crop], result, api_name="animate", concurrency_limit=None)
        button.click(depth, [photo], [colours, mesh], api_name="depth", concurrency_limit=2)
