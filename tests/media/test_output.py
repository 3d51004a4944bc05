"""Outputs appear whole or not at all."""

import errno
import subprocess
import sys
import textwrap

import pytest

from dagan.errors import InputError
from dagan.media.output import atomic_folder, atomic_output


def test_appears_only_at_the_end_and_makes_folders(tmp_path):
    target = tmp_path / "a" / "b" / "out.txt"
    with atomic_output(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("done")
        assert not target.exists()
    assert target.read_text() == "done"
    assert [p.name for p in target.parent.iterdir()] == ["out.txt"]


def write_half(target, error):
    with atomic_output(target, overwrite=True) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_is_left_after_an_interruption(tmp_path, error):
    with pytest.raises(error):
        write_half(tmp_path / "new" / "out.txt", error)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_was_there_stays_after_an_interruption(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyboardInterrupt), atomic_output(tmp_path / "old" / "new" / "out.txt"):
        raise KeyboardInterrupt
    assert list((tmp_path / "old").iterdir()) == []


def test_existing_file_is_kept_without_overwrite(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(InputError, match="--overwrite"), atomic_output(target):
        pytest.fail("the block must not run")
    assert target.read_text() == "old"
    with atomic_output(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_file_that_appears_meanwhile_is_kept(tmp_path):
    target = tmp_path / "out.txt"
    with pytest.raises(InputError, match="exists already"), atomic_output(target):
        target.write_text("theirs")
    assert target.read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_old_file_survives_a_failed_overwrite(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError):
        write_half(target, RuntimeError)
    assert target.read_text() == "old"


def test_folder_as_target(tmp_path):
    with pytest.raises(InputError, match="is a folder"), atomic_output(tmp_path, overwrite=True):
        pytest.fail("the block must not run")


def test_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"), atomic_output(tmp_path / "file" / "out.txt"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_full_disk_names_the_file(tmp_path, code):
    with pytest.raises(InputError, match=r"out\.txt .*disk is full"), atomic_output(tmp_path / "out.txt"):
        raise OSError(code, "no space")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_system_pass_unchanged(tmp_path):
    with pytest.raises(ConnectionError), atomic_output(tmp_path / "out.txt"):
        raise ConnectionError(errno.ECONNRESET, "reset")


def test_long_names_work(tmp_path):
    target = tmp_path / ("x" * 250 + ".txt")
    with atomic_output(target) as temporary:
        temporary.write_text("done")
    assert target.exists()


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.gif"])
def test_real_writers_report_a_full_disk(tmp_path, name):
    """A limit on file sizes stands in for the full disk; it must hold for the whole process, hence another one."""
    if sys.platform == "win32":  # no such limit there: the conversion of the error is tested above
        return
    script = f"""
        import resource
        import numpy as np
        from fractions import Fraction
        from dagan.errors import InputError
        from dagan.media.video import VideoWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        noise = np.random.default_rng(0)
        try:
            with VideoWriter({str(tmp_path / name)!r}, 128, 128) as writer:
                for i in range(12):
                    writer.write(noise.integers(0, 255, (128, 128, 3), dtype=np.uint8), Fraction(i, 25))
        except InputError as error:
            print(error)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert "disk is full" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_folders_appear_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "a" / "b"
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as partial:  # noqa: PT012
        (partial / "x").write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with atomic_folder(folder) as partial:
        (partial / "x").write_text("one")
        assert not folder.exists()
    with pytest.raises(InputError, match="exists already"), atomic_folder(folder):
        pass
    with pytest.raises(OSError, match="no luck"), atomic_folder(folder, overwrite=True):
        raise OSError("no luck")
    assert (folder / "x").read_text() == "one"
    with atomic_folder(folder, overwrite=True) as partial:
        (partial / "y").write_text("two")
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("y", "two")]
    assert [p.name for p in folder.parent.iterdir()] == ["b"]
