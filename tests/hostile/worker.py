"""Runs `dagan` commands one after the other in this process: a request a line in, what came of it a line out, both JSON.

A command takes seconds to start and a fraction of one to refuse a file: one process serves many. What a command, or a library below
it, writes to standard output and error is caught at the level of the system, so that nothing escapes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback

from dagan.cli import main


def run(arguments: list[str], folder: str) -> dict[str, object]:
    """Status, and both outputs, of one command in `folder`. A status of -1 is an exception that reached the top."""
    os.chdir(folder)
    sys.argv = ["dagan", *arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = [os.dup(1), os.dup(2)]
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        status = 0
        try:
            main()
        except SystemExit as leave:
            status = int(leave.code or 0)
        except BaseException:
            status = -1
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return {"status": status, "out": texts[0], "err": texts[1]}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(run(request["arguments"], request["folder"])), file=answers)
