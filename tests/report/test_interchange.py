"""Records in other tools' layouts are read and found valid by those tools themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness.report.interchange import Layout, interchange
from tests.report.records import Made, build_from, seven, write_runs

PUBLISHED = Path(__file__).parents[2] / "reports" / "quick" / "records"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of synthetic runs, one of a variant whose name holds odd characters."""
    root = tmp_path_factory.mktemp("store")
    write_runs(root, [*seven(seeds=2), Made("lora_bf16", settings=("adapter.r=8",))])
    return root


def written(root: Path, layout: Layout, folder: Path) -> list[Path]:
    report = build_from(root)
    for name, content in interchange(report, layout).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_lm_eval_prints_its_own_table_of_every_run(made: Path, tmp_path: Path) -> None:
    from lm_eval.utils import make_table

    paths = written(made, "lm-eval", tmp_path)
    runs = [record for row in build_from(made).evidence.rows for record in row.finished]
    assert len(paths) == len(runs)
    for path in paths:
        assert path.name.startswith("results_")
        document = json.loads(path.read_text())
        table = make_table(document)
        value = document["results"]["held_out"]["perplexity,none"]
        assert f"{value:.4f}" in table
        assert path.parent.name == document["model_name_sanitized"]
    found = {
        json.loads(path.read_text())["results"]["held_out"]["perplexity,none"] for path in paths
    }
    stored = {s.value for r in runs if (s := r.score("held_out", "perplexity"))}
    assert found == stored


@pytest.mark.parametrize("layout", ["lm-eval", "every-eval-ever"])
def test_neither_layout_holds_a_path_or_a_text_of_the_data(
    made: Path, tmp_path: Path, layout: Layout
) -> None:
    for path in written(made, layout, tmp_path):
        text = path.read_text()
        assert "/some/folder" not in text
        assert str(made) not in text


def test_every_eval_ever_finds_its_documents_valid(made: Path, tmp_path: Path) -> None:
    validation = pytest.importorskip("every_eval_ever.validator.validation_core")
    paths = written(made, "every-eval-ever", tmp_path)
    assert paths
    for root in (made, PUBLISHED):
        folder = tmp_path / root.name
        for path in written(root, "every-eval-ever", folder):
            name = path.relative_to(folder).as_posix()
            report = validation.validate_file(path, repo_path=name, run_semantic_checks=True)
            assert report.valid, report.errors
            assert not report.warnings


def test_every_eval_ever_reads_lm_evals_layout_as_well(made: Path, tmp_path: Path) -> None:
    adapter = pytest.importorskip("every_eval_ever.converters.lm_eval.adapter")
    paths = written(made, "lm-eval", tmp_path)
    logs = adapter.LMEvalAdapter().transform_from_directory(tmp_path, {})
    assert len(logs) >= len(paths)
    scores = [found.score_details.score for log in logs for found in log.evaluation_results]
    assert all(math.isfinite(score) for score in scores)


def test_documents_are_the_same_for_the_same_records(made: Path) -> None:
    report = build_from(made)
    once, again = (interchange(report, "every-eval-ever") for _ in range(2))
    assert once == again
    assert len(once) == sum(len(row.finished) for row in report.evidence.rows)
