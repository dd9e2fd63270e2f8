"""What every run sets before it loads libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])
# As a child process does: its own modules first, and what TRL does with each trainer.
CODE = """
import threading
from harness.runs import child
from harness.runs.libraries import set_library_defaults
from harness.weights.fetch import quiet_libraries

set_library_defaults()
quiet_libraries()
from huggingface_hub.utils import send_telemetry
from tqdm.auto import tqdm

list(tqdm(range(2), disable=True))
send_telemetry("trl", library_name="trl")
print([thread.name for thread in threading.enumerate()])
"""


def test_libraries_begin_no_threads_of_their_own_in_a_run() -> None:
    """Nor do they tell anybody of it, unless the user lets them."""
    mine = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRANSFORMERS_OFFLINE")
    env = {name: value for name, value in os.environ.items() if name not in mine}
    # Nobody answers there: what would be sent, if this fails, goes nowhere.
    env |= {"PYTHONPATH": ROOT, "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "['MainThread']", done.stdout + done.stderr
