"""How many pictures a second the page's live camera answers, and how long each takes there and back.

    python benchmarks/live.py [SECONDS] [OPTION OF dagan app]...

The page runs in a process of its own, as `dagan app` starts it. This process is its camera: 30 pictures a second of 640 x 480, in which the
bundled portrait's head nods, sent as the page's script does, the newest whenever few are unanswered. Each picture carries the clock's time,
which its answer gives back. A line is printed for each minute: pictures a second, the median and the 95th percentile of the time from the
camera to the answer, and the page's memory.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import psutil
from PIL import Image
from websockets.sync.client import connect

from dagan.examples import PORTRAIT

_RATE = 30
_WARM = 3.0  # Seconds that are not counted.


def camera() -> list[bytes]:
    """Returns two seconds of the camera, as JPEG files."""
    face = Image.open(PORTRAIT).convert("RGB").crop((130, 0, 330, 200)).resize((400, 400))
    pictures = []
    for i in range(2 * _RATE):
        picture = Image.new("RGB", (640, 480), (120, 130, 140))
        angle = 2 * np.pi * i / (2 * _RATE)
        picture.paste(face.rotate(5 * np.sin(angle)), (110 + round(20 * np.sin(angle)), 40))
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=85)
        pictures.append(data.getvalue())
    return pictures


def measure(port: int, seconds: float, page: psutil.Process) -> None:
    """Prints a line for each minute."""
    pictures = camera()
    with connect(f"ws://127.0.0.1:{port}/live/socket", max_size=None) as page_socket:
        spare = json.loads(page_socket.recv())["workers"] + 1
        began, taken, sent, answered = time.monotonic(), -1, 0, 0
        turn, delays = began + _WARM, []
        while (now := time.monotonic()) < began + _WARM + seconds:
            due = int((now - began) * _RATE)
            if sent - answered < spare and due > taken:
                taken, sent = due, sent + 1
                page_socket.send(struct.pack("<dI", now, sent) + pictures[due % len(pictures)])
            try:
                answer = page_socket.recv(timeout=max(0.0, began + (due + 1) / _RATE - time.monotonic()) if sent - answered < spare else 1)
            except TimeoutError:
                continue
            (length,) = struct.unpack_from("<I", answer)
            facts = json.loads(answer[4 : 4 + length])
            answered = facts["number"]
            now = time.monotonic()
            if now < began + _WARM:
                continue
            delays.append(now - facts["time"])
            if now > turn + min(60, seconds - 0.5):
                middle, late = (1000 * np.quantile(delays, share) for share in (0.5, 0.95))
                memory = page.memory_info().rss / 1e6
                rate = len(delays) / (now - turn)
                print(f"{rate:5.1f} a second, {middle:4.0f} ms, 95 % within {late:4.0f} ms, {memory:.0f} MB", flush=True)
                turn, delays = now, []


def main() -> None:
    """Starts the page, and measures it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    port = 7899
    command = [sys.executable, "-m", "dagan", "app", "--port", str(port), "--no-browser", *sys.argv[2:]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as page:
        try:
            for _ in range(240):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.5)
            measure(port, seconds, psutil.Process(page.pid))
        finally:
            page.terminate()


if __name__ == "__main__":
    main()
