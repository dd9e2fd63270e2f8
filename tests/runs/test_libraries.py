"""What every run sets before it loads libraries."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runs.libraries import SPINS, set_library_defaults
from tests.runs.small_run import Small

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


def fresh(
    code: str, *arguments: str, without: tuple[str, ...] = (), given: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """What a new interpreter says, in this environment but for some names."""
    kept = {name: value for name, value in os.environ.items() if name not in without}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=given,
        env=kept | {"PYTHONPATH": ROOT} | env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_libraries_begin_no_threads_of_their_own_in_a_run() -> None:
    """Nor do they tell anybody of it, unless the user lets them."""
    mine = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRANSFORMERS_OFFLINE")
    # Nobody answers there: what would be sent, if this fails, goes nowhere.
    done = fresh(CODE, without=mine, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stdout.strip() == "['MainThread']", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, SPINS),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_threads_that_wait_let_others_have_their_cores(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], found: str | None
) -> None:
    """Unless the user says how they shall wait."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", {**os.environ})
    set_library_defaults()
    assert os.environ.get("GOMP_SPINCOUNT") == found


def test_torch_is_loaded_after_it_is_told_how_to_wait() -> None:
    """libgomp reads it once, when it is loaded."""
    code = """
import os, sys
from harness.runs import child, warm
from harness.deploy import speak
assert "torch" not in sys.modules
from harness.runs.libraries import load_torch
load_torch()
print(os.environ["GOMP_SPINCOUNT"])
"""
    done = fresh(code, without=("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"))
    assert done.stdout.strip() == SPINS, done.stderr


# A run's scores of its base, after what `Run` loads before it takes or reuses them.
SCORED = """
import json, sys
from pathlib import Path
from harness.corpus.corpus import build_corpus
from harness.corpus.render import Renderer
from harness.records.events import Silence
from harness.records.store import RunFolder
from harness.runs.draft import RunLog
from harness.runs.options import RunOptions
from harness.runs.run import Run
from harness.spec.plan import Plan

plan = Plan.model_validate_json(sys.stdin.read())
folder = RunFolder(Path(sys.argv[1]))
with RunLog(folder.events_of(0)) as log:
    run = Run(plan, folder, log, RunOptions())
    run.load_libraries("what models need", "harness.weights.load", "peft")
    source = run.fetch()
    corpus, renderer, _ = run.prepare(source)
    model = run.load(source)
    run.load_for_scoring()
    before = set(sys.modules)
    from harness.score.take import take_scores
    found = take_scores(run.subject(model, corpus, renderer), "before", folder.path, Silence())
    new = sys.modules.keys() - before
print(json.dumps([len(found.scores), sorted(new)]))
"""


def test_scores_import_no_library_that_a_run_has_not_loaded_before(
    small: Small, tmp_path: Path
) -> None:
    """A run that reuses its base's scores trains beside the same libraries as one that takes them.

    Else their training would show another peak of memory.
    """
    asked = (
        'score.tasks=[{name = "held_out_replies"}]',
        "score.generations=1",
        "score.max_new_tokens=4",
    )
    plan = small.plan(*asked, "score.prompts=held_out")
    done = fresh(SCORED, str(tmp_path), given=plan.model_dump_json())
    assert done.returncode == 0, done.stderr
    scores, new = json.loads(done.stdout.splitlines()[-1])
    assert scores > 2
    assert [name for name in new if "/" not in name] == []  # a task's own file has a path


# Products of one shape after another, as answers have that grow by a token.
SHAPES = """
import ctypes
from harness.runs.libraries import set_library_defaults

set_library_defaults()
import torch

class Info(ctypes.Structure):
    _fields_ = [(str(at), ctypes.c_size_t) for at in range(10)]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info

def used():
    return getattr(libc.mallinfo2(), "7")

weight = torch.zeros(64, 64, dtype=torch.bfloat16)
taken = []
for rows in range(1, 451):
    torch.nn.functional.linear(torch.zeros(rows, 64, dtype=torch.bfloat16), weight)
    if rows in (150, 450):
        taken.append(used())
print(taken[1] - taken[0])
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="what is allocated is asked of glibc 2.33 and later",
)
def test_products_of_ever_new_shapes_are_not_all_kept() -> None:
    """What scoring a base has left in memory would count for the training after it."""
    done = fresh(SHAPES, without=("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 << 20  # 300 shapes more: 150 MB where all are kept
