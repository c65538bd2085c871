"""A file with a token is private from its first byte, complete when it is there, and never written through a link."""

import os
import stat
import threading

import pytest

from mageflow.files import PRIVATE, PUBLIC, write_in_one_step


def test_a_private_file_is_private_and_complete(tmp_path):
    """Only this user may read it, also if the umask allows more."""
    path = tmp_path / "handshake.json"
    before = os.umask(0)
    try:
        write_in_one_step(path, "token", mode=PRIVATE)
    finally:
        os.umask(before)

    assert path.read_text() == "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_public_file_follows_the_umask(tmp_path):
    """Prometheus runs as another user."""
    path = tmp_path / "targets.json"
    before = os.umask(0o022)
    try:
        write_in_one_step(path, "[]", mode=PUBLIC)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    """A user who can write the directory cannot lead the text into another file."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "handshake.json"
    path.symlink_to(victim)

    write_in_one_step(path, "token", mode=PRIVATE)

    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    assert path.read_text() == "token"


def test_a_reader_never_sees_a_part(tmp_path):
    """While the file is written again and again, every reading is one whole text."""
    path = tmp_path / "handshake.json"
    texts = {letter * 50_000 for letter in "ab"}
    write_in_one_step(path, "a" * 50_000, mode=PRIVATE)
    ended = threading.Event()

    def write() -> None:
        for _ in range(50):
            for text in texts:
                write_in_one_step(path, text, mode=PRIVATE)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    readings = 0
    while not ended.is_set():
        assert path.read_text() in texts
        readings += 1
    writer.join()
    assert readings > 0


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    """A directory at the path is an error, and no unfinished file stays beside it."""
    path = tmp_path / "handshake.json"
    path.mkdir()
    with pytest.raises(OSError, match="handshake"):
        write_in_one_step(path, "token", mode=PRIVATE)

    assert list(tmp_path.iterdir()) == [path]
