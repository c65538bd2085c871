"""A test that fails is one failure: what it leaves does not fail the tests after it."""

import shutil
import subprocess
import sys
from pathlib import Path

TESTS = """
import gc, socket, subprocess, sys


def test_that_fails():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"])
    server = socket.create_server(("127.0.0.1", 0))

    async def never():
        pass

    lost = never()
    assert process == server == lost


def test_that_passes():
    sys.last_value = None  # as the failure of another test does
    gc.collect()
"""


def test_what_a_failed_test_leaves_fails_no_other(root: Path, tmp_path: Path) -> None:
    """A process, a socket and a coroutine in its variables."""
    (tmp_path / "test_two.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    shutil.copy(root / "tests" / "conftest.py", tmp_path)
    options = ("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:asyncio")
    command = [sys.executable, "-m", "pytest", "-q", *options, "test_two.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert "\n1 failed, 1 passed in " in done.stdout, done.stdout + done.stderr
