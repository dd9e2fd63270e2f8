"""For one adapter the harness's scores are those of the lm_eval command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.score.catalogue import load_task
from harness.score.engine import PlainLM
from harness.score.evaluation import evaluate
from harness.score.items import Place
from harness.score.samples import write_scores
from harness.spec.suite import Task
from tests.score.conftest import fast_engine, make_model

TASK = Task(name="openbookqa", num_fewshot=5, limit=6)


def run_command_line(model: Path, adapter: Path, data: Path, out: Path) -> dict[str, Any]:
    """What ``lm_eval`` writes of the task; in the data folder, so that stock names find it."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={model},peft={adapter},dtype=float32"]
    command += ["--tasks", TASK.name, "--num_fewshot", str(TASK.num_fewshot)]
    command += ["--limit", str(TASK.limit), "--batch_size", "1"]
    command += ["--output_path", str(out), "--log_samples"]
    done = subprocess.run(
        command,
        cwd=data,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    return {"results": json.loads(results.read_text())["results"][TASK.name], "rows": rows}


def test_scores_of_an_adapter_equal_the_command_line(
    shared_data: Path, model_folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = get_peft_model(make_model(), config).eval()
    model.save_pretrained(tmp_path / "adapter")
    data = shared_data / "lm_eval"
    theirs = run_command_line(model_folder, tmp_path / "adapter", data, tmp_path / "out")
    for lm in (PlainLM(model, tokenizer), fast_engine(model, tokenizer)):
        folder = tmp_path / type(lm).__name__
        with load_task(TASK, data, folder) as loaded:
            place = Place(folder, "after", "training")
            scores = write_scores(evaluate(TASK, loaded, lm, {}), place)
        for score in scores:
            assert score.value == theirs["results"][f"{score.metric},none"]
            assert score.standard_error == pytest.approx(
                theirs["results"][f"{score.metric}_stderr,none"]
            )
            rows = pq.read_table(folder / str(score.items)).to_pydict()
            for index, row in enumerate(theirs["rows"]):
                assert rows["doc_hash"][index] == row["doc_hash"]
                assert rows["numerator"][index] == row[score.metric]
                expected = [float(response[0][0]) for response in row["resps"]]
                np.testing.assert_allclose(rows["log_likelihoods"][index], expected, atol=1e-4)
