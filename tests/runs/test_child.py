"""The process of a run: seeded alike, and at its first phase without libraries of later ones."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import set_seed

from harness.runs.child import VISIBLE, see_gpus, see_one_gpu, set_up_torch
from harness.runs.options import RunOptions
from tests.planned import CPU, GPU, planned

# As much as `Run.execute` imports before its first phase.
BEFORE_FETCH = """
import json, sys
import harness.runs.child, torch
from harness.measure.environment import take_environment
from harness.score.check import check_task_data
from harness.train.path import path_of
from harness.weights.fetch import fetch, quiet_libraries
from harness.spec.plan import Plan
plan = Plan.model_validate_json(sys.stdin.read())
harness.runs.child.set_up_torch(plan)
quiet_libraries()
path_of(plan)
heavy = ("peft", "bitsandbytes", "sklearn", "datasets", "torch._dynamo", "torch._inductor")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_runs_are_seeded_as_transformers_would() -> None:
    plan = planned("lora_bf16")
    threads = torch.get_num_threads()
    set_seed(plan.seed)
    expected = draws()
    set_up_torch(plan)
    found = draws()
    torch.set_num_threads(threads)
    assert found == expected


def test_runs_at_once_on_a_gpu_share_the_threads_of_its_machine() -> None:
    before = torch.get_num_threads()
    try:
        set_up_torch(planned("lora_bf16", device=GPU), threads=1)
        assert torch.get_num_threads() == 1
        set_up_torch(planned("lora_bf16"), threads=1)
        assert torch.get_num_threads() == CPU.threads, "a plan for a CPU says how many"
    finally:
        torch.set_num_threads(before)


def test_the_first_phase_does_not_wait_for_what_later_ones_need() -> None:
    found = subprocess.run(
        [sys.executable, "-c", BEFORE_FETCH],
        input=planned("lora_bf16").model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout) == []


def test_a_run_sees_the_gpus_it_was_given_and_a_process_one_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VISIBLE, "0,1,2,3")
    see_gpus(RunOptions(gpus="2,3"))
    assert os.environ[VISIBLE] == "2,3"
    see_one_gpu(planned("lora_bf16", device=GPU), 1)
    assert os.environ[VISIBLE] == "3"
    see_gpus(RunOptions())
    assert os.environ[VISIBLE] == "3", "what is not given stays"
