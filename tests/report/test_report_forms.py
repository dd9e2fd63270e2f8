"""The report says which form of a result to deploy, where its runs scored any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.records.record import RunRecord, Score
from harness.report.forms import forms_section
from harness.report.recommend import recommend
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, _write_items, build_from, write_run

CLUSTER = np.repeat(np.arange(12), 2)


def store(root: Path, divergences: dict[str, tuple[float, int]]) -> Path:
    """Two trainings of a variant with scored forms: nats a token and bytes of each."""
    for seed in (0, 1):
        folder = write_run(root, Made("lora_bf16", seed=seed))
        record = read_json(folder / "record.json", RunRecord)
        found = [_fidelity(folder, form, nats, size) for form, (nats, size) in divergences.items()]
        scores = (*record.scores, *found)
        write_json(folder / "record.json", record.model_copy(update={"scores": scores}))
    return root


def _fidelity(folder: Path, form: str, nats: float, size: int) -> Score:
    name = f"items/fidelity-kl-after-{form.replace(':', '-')}.parquet"
    tokens = np.full(len(CLUSTER), 10.0)
    spread = 1 + 0.1 * np.sin(CLUSTER)
    _write_items(folder / name, CLUSTER, nats * tokens * spread, tokens)
    return Score(
        task="fidelity",
        metric="kl_divergence",
        stage="after",
        precision=form,
        value=float((nats * tokens * spread).sum() / tokens.sum()),
        standard_error=None,
        n=len(CLUSTER),
        unit="nats per token",
        direction="lower",
        items=name,
        details={"bytes": size},
    )


@pytest.mark.parametrize(
    ("divergences", "said"),
    [
        ({"merged": (1e-4, 270), "gguf:Q8_0": (2e-3, 140), "gguf:Q4_0": (0.2, 80)}, "as gguf:Q8_0"),
        ({"merged": (1e-4, 270), "gguf:Q8_0": (0.05, 140)}, "as merged"),
        ({"gguf:Q4_0": (0.2, 80)}, "deploy the adapter on the base"),
    ],
)
def test_the_recommendation_names_the_smallest_form_that_is_still_the_model(
    tmp_path: Path, divergences: dict[str, tuple[float, int]], said: str
) -> None:
    evidence = build_from(store(tmp_path, divergences)).evidence
    found = recommend(evidence)
    assert found is not None
    assert said in found.reasons[-1]
    assert forms_section(evidence) is not None


def test_without_scored_forms_it_names_none(tmp_path: Path) -> None:
    evidence = build_from(store(tmp_path, {})).evidence
    found = recommend(evidence)
    assert found is not None
    assert "eploy" not in " ".join(found.reasons)
    assert forms_section(evidence) is None
