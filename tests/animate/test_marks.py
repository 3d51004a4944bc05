"""`dagan animate` marks what it writes."""

from pathlib import Path

import numpy as np
import pytest

from certificates import write_chain


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, Path]:
    return write_chain(tmp_path)


def test_the_command_marks_and_signs(files, run, command, tmp_path, chain, written):
    assert run("--mark", "--credentials", *chain)[0] == 0
    with_mark = np.stack(written)
    written.clear()
    assert run("--overwrite")[0] == 0
    gap = np.abs(with_mark.astype(int) - np.stack(written)).max((0, 3))
    rows, _ = np.nonzero(gap)
    assert gap.max() > 60
    assert rows.min() > 40  # The mark is in the lower corner.
    assert command("verify", "out.mp4")[0] == 0
    status, _, complaint = run("--credentials", *chain, output="out.webm")
    assert status == 2
    assert "cannot hold Content Credentials" in complaint
