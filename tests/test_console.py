"""Output that cannot be written: the job's files are there, nothing ends in a traceback; names that are no text are escaped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dagan.checks import json_text, printable, text_path

ODD = os.fsdecode(b"n\xff\xe9m") if sys.platform == "linux" else "n\u00e9m"
ESCAPED = "n\\udcff\\udce9m" if sys.platform == "linux" else ODD
# What a command does, without the seconds that loading a network takes.
JOB = """
import sys
from pathlib import Path
from dagan.cli.console import check_printed, lenient_streams
with lenient_streams():
    Path(sys.argv[1]).open("w").write("result")
    print("line " * 20000)
    print("warning", file=sys.stderr)
    if "must" in sys.argv:
        check_printed()
"""
REDIRECTED = (">/dev/full", ">/dev/full 2>/dev/full", ">&-", "2>&-", ">&- 2>&- <&-", "| head -0")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device on this system")
@pytest.mark.parametrize("redirected", REDIRECTED)
def test_a_job_does_not_end_of_its_output(tmp_path, redirected):
    output = tmp_path / "out"
    line = f'set -o pipefail; "$0" -c "$1" "$2" {redirected}'
    done = subprocess.run(["bash", "-c", line, sys.executable, JOB, output], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert output.read_text() == "result"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert ("No space left" in done.stderr) == (redirected == ">/dev/full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device on this system")
def test_a_job_whose_only_result_is_printed_says_so_by_its_status(tmp_path):
    line = '"$0" -c "$1" "$2" must > /dev/full'
    done = subprocess.run(["bash", "-c", line, sys.executable, JOB, tmp_path / "out"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device on this system")
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_lost_help_is_status_1(option):
    line = f'"$0" -c "from dagan.cli import main; main()" {option} > /dev/full'
    done = subprocess.run(["bash", "-c", line, sys.executable], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_names_are_escaped_in_text_and_json(tmp_path):
    assert printable(ODD) == ESCAPED
    written = tmp_path / "report.json"
    written.write_text(json_text({"source": ODD, "warnings": [f"{ODD} is odd", "\u00e9\U0001f600"]}), encoding="utf-8")
    assert json.loads(written.read_text(encoding="utf-8")) == {"source": ESCAPED, "warnings": [f"{ESCAPED} is odd", "\u00e9\U0001f600"]}


def test_text_path_opens_what_is_named(tmp_path):
    folder = tmp_path / ODD
    folder.mkdir()
    (folder / "a").write_text("content")
    with text_path(folder) as name:
        str(name).encode("utf-8")
        assert (name / "a").read_text() == "content"


def test_every_file_of_a_job_may_have_a_name_that_is_no_text(command, tmp_path, monkeypatch):
    from PIL import Image

    from running_samples import moving_pictures, save_tiny_model, write_clip

    monkeypatch.chdir(tmp_path)
    save_tiny_model(Path(f"{ODD}.safetensors"))
    Image.fromarray(moving_pictures(1, 80, 70, seed=5)[0]).save(f"{ODD}.png")
    write_clip(Path(f"{ODD}.mp4"), moving_pictures(4, 96, 64), sound=True)
    common = ("--model", f"{ODD}.safetensors", "--no-crop", "--device", "cpu")
    more = ("--json", f"{ODD}.json", "--save-motion", f"{ODD}.motion")
    status, said, complaint = command("animate", f"{ODD}.png", f"{ODD}.mp4", "-o", f"out{ODD}.mp4", *more, *common)
    assert (status, complaint) == (0, "")
    assert f"out{ESCAPED}.mp4: 4 frames" in printable(said)
    report = json.loads(Path(f"{ODD}.json").read_text(encoding="utf-8"))
    assert (report["source"], report["output"]) == (f"{ESCAPED}.png", f"out{ESCAPED}.mp4")
    assert command("animate", f"{ODD}.png", f"{ODD}.motion", "-o", f"again{ODD}.gif", *common)[0] == 0
    Path("clips").mkdir()
    Path(f"{ODD}.mp4").rename(Path("clips") / f"{ODD}.mp4")
    more = ("-o", f"run{ODD}", "--json", f"sum{ODD}.json", "--every", "1")
    status, _, complaint = command("evaluate", "reconstruction", "clips", *more, *common[:2])
    assert status == 0, complaint
    page = (Path(f"run{ODD}") / "report.html").read_text(encoding="utf-8")
    assert f"{ESCAPED}.mp4" in page
    status, _, complaint = command("animate", f"none{ODD}.png", f"{ODD}.mp4", "-o", "x.mp4", *common)
    assert status == 2
    assert "Traceback" not in complaint
