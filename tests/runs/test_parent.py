"""A process ends with its parent, whatever was done to both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.test_warm import alive, wait_for

CHILD = """
import time
from harness.runs.parent import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(3600)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(3600)
"""


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a lost parent")
@pytest.mark.parametrize("stopped", [False, True])
def test_a_process_ends_with_a_killed_parent_also_where_it_is_stopped(stopped: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    try:
        if stopped:
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: state(pid) == "T")
        parent.kill()
        parent.wait()
        wait_for(lambda: not alive(pid), seconds=60.0)
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
