"""Gradio's fields for photos, videos and meshes, such that files stay as they were sent and where they are, and come from uploads alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from dagan.app.folder import PrivateFolder

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
