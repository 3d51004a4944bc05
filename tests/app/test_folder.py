"""The private folder: nothing stays, whoever ends it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from dagan.app.uploads import PrivateFolder, sweep_stale
from dagan.errors import InputError


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_only_its_owner_can_look_into_it_and_it_is_removed(temporary):
    with PrivateFolder() as folder:
        (folder.path / "a.png").write_bytes(b"a")
        if os.name == "posix":
            assert folder.path.stat().st_mode & 0o77 == 0
    assert list(temporary.iterdir()) == []


def test_files_go_with_their_session_unless_another_holds_them():
    with PrivateFolder() as folder:
        shared, own = folder.new_file("a", "shared.mp4"), folder.new_file("a", "own.mp4")
        for path in (shared, own):
            path.write_bytes(b"a")
        folder.hold("b", shared)
        folder.release("a")
        assert folder.visitors_files() == [shared]
        folder.release("b")
        assert folder.visitors_files() == []
        assert [path.name for path in folder.path.iterdir()] == ["owner.json"]


def test_old_files_go_and_those_of_the_page_stay():
    with PrivateFolder(keep_seconds=50) as folder:
        page, old, held, new = (folder.path / name for name in ("page.png", "old.png", "held.png", "new.png"))
        page.write_bytes(b"a")
        folder.keep_present()
        for path in (old, held, new):
            path.write_bytes(b"a")
        for path in (page, old, held):
            os.utime(path, (time.time() - 60,) * 2)
        folder.hold("a", held)
        folder.remove_old()
        assert sorted(path.name for path in folder.files()) == ["held.png", "new.png", "page.png"]
        os.utime(held, (time.time() - 3600,) * 2)
        folder.remove_old()
        assert not held.exists()


def test_paths_outside_are_no_uploads(tmp_path):
    with PrivateFolder() as folder:
        (folder.path / "link").symlink_to("/etc")
        for path in ("/etc/passwd", folder.path / ".." / "x", folder.path / "link" / "passwd", "C:\\x"):
            with pytest.raises(InputError, match="no upload"):
                folder.inside(path)
        assert folder.inside(folder.path / "a.png") == folder.path / "a.png"


def test_a_full_folder_says_so():
    with PrivateFolder(most_bytes=1000) as folder:
        assert folder.room_for(500)
        (folder.path / "a.png").write_bytes(bytes(600))
        assert not folder.room_for(500)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of Unix")
def test_what_a_killed_page_left_is_removed_by_the_next(temporary):
    code = "from dagan.app.uploads import *; f = PrivateFolder(); (f.path / 'a').write_bytes(b'a'); print(f.path, flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    )
    left = Path(child.stdout.readline().strip())
    sweep_stale()
    assert (left / "a").exists()  # The page still runs.
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with PrivateFolder() as folder:
        assert [path for path in temporary.iterdir() if path != folder.path] == []


def test_a_number_that_another_process_has_by_now_does_not_protect_a_folder(temporary):
    folder = temporary / "dagan-page-old"
    folder.mkdir()
    (folder / "owner.json").write_text(json.dumps({"pid": os.getpid(), "began": 1.0}))
    sweep_stale()
    assert not folder.exists()


def test_files_and_folders_may_vanish_while_they_are_listed():
    with PrivateFolder() as folder:
        ended = threading.Event()

        def churn() -> None:
            while not ended.is_set():
                folder.new_file("a", "a.mp4").write_bytes(b"a")
                folder.release("a")

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(1000):
                assert len(folder.files()) <= 1
                assert folder.room_for(0)
                folder.remove_old()
        finally:
            ended.set()
            thread.join()
