"""What the page says of a job and of what went wrong, as short pieces of HTML that screen readers announce."""

from __future__ import annotations

import base64
import html

import numpy as np

from dagan.animate.report import AnimateReport
from dagan.app.runs import Step
from dagan.app.socket import encode_picture


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


def picture_of(picture: np.ndarray | None) -> str:
    """Returns a picture, H x W x 3 uint8, as part of the page itself, so that no file is left behind; None is an empty frame."""
    if picture is None:
        return '<div class="dagan-picture"></div>'
    address = f"data:image/jpeg;base64,{base64.b64encode(encode_picture(picture)).decode('ascii')}"
    return f'<img class="dagan-picture" alt="The posed photo" src="{address}">'
