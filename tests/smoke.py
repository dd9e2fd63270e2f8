"""What the main job must have left behind; called by the session ``smoke`` with its folder."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from harness.records.record import PHASES
from harness.records.store import RunStore, StoredRun
from harness.spec.plan import Plan

STEPS = 4


def problems(reports: Path) -> list[str]:
    """Everything that is not as it should be, in words."""
    runs = list(RunStore(reports / "runs").scan())
    if len(runs) != 1 or not isinstance(runs[0], StoredRun):
        return [f"expected one readable run below {reports}, found {runs}"]
    plan = runs[0].record.plan
    return run_problems(runs[0]) + report_problems(reports / plan.suite, plan)


def run_problems(run: StoredRun) -> list[str]:
    """What is wrong with the record and the files beside it."""
    record, folder = run.record, run.folder
    if record.status != "ok" or record.training is None or record.census is None:
        return [f"the run ended as {record.status}: {record.problem}"]
    losses = [point.loss for point in record.training.losses]
    perplexities = [
        record.score("held_out", "perplexity", stage=stage) for stage in ("before", "after")
    ]
    found = {
        "phases": [phase.name for phase in record.phases] == list(PHASES),
        "every phase is timed and its memory known": all(
            phase.seconds > 0 and phase.peak_resident_bytes for phase in record.phases
        ),
        "losses": len(losses) == STEPS and all(map(math.isfinite, losses)),
        "assistant tokens are a part of all tokens": 0
        < record.training.tokens.assistant
        < record.training.tokens.non_padding
        <= record.training.tokens.padded,
        "the base is NF4": any(row.quantization == "nf4" for row in record.census.rows),
        "only the adapter is trained": all(
            row.quantization == "none" for row in record.census.rows if row.trainable
        ),
        "the corpus is not the sample": record.corpus is not None and not record.corpus.is_sample,
        "scores before and after training": {score.stage for score in record.scores}
        == {"before", "after"},
        "scores have per-item values": all(
            score.items and (folder.path / score.items).is_file() for score in record.scores
        ),
        "perplexity before and after": all(
            score is not None and 1 < score.value < math.inf and score.standard_error
            for score in perplexities
        ),
        "the bundled lm-eval task": any(
            "held_out_replies" in score.task for score in record.scores
        ),
        "a headline score": any(score.headline for score in record.scores),
        "adapter": any(folder.adapter.glob("*.safetensors")),
        "no checkpoint is left": not folder.checkpoint.exists(),
    }
    return [f"not so: {name}" for name, holds in found.items() if not holds]


def report_problems(folder: Path, plan: Plan) -> list[str]:
    """What is wrong with the written report."""
    report = folder / "report.md"
    if not report.is_file():
        return [f"no report at {report}"]
    text = report.read_text(encoding="utf-8")
    found = {
        "the report names the variant": "qlora_nf4" in text,
        "the report has figures": any(folder.rglob("*.svg")) or any(folder.rglob("*.png")),
        "the report says what was substituted": all(
            item.key in text and str(item.used) in text for item in plan.substitutions
        ),
    }
    return [f"not so: {name}" for name, holds in found.items() if not holds]


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    sys.exit("\n".join(wrong) if wrong else None)
