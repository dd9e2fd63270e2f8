"""The page of items: what runs answered, item by item, in local reports alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.records.store import RunStore, StoredRun
from harness.report.browse import item_data, items_page, likeliest, read_results
from harness.report.build import ReportRequest
from harness.report.publish import publish_report
from harness.report.write import write_report
from tests.report.records import Made, build_from, write_run, write_runs

SECRET = "</script><script>alert(1)</script> a sentence of somebody's conversation \u202e"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two variants; the seeds of one answer differently."""
    root = tmp_path_factory.mktemp("browse")
    write_runs(root, [Made("base", answers=True)])
    write_runs(root, [Made("qlora_nf4", seed=s, log_ratio=-0.1, answers=True) for s in (0, 1)])
    found = item_data(build_from(root).evidence)
    assert found is not None
    return found


def results(data: dict[str, Any], title: str) -> list[dict[str, Any]]:
    """Items of a score, with texts instead of their places and answers by variant."""
    (score,) = (score for score in data["scores"] if score["title"] == title)
    labels = [row["label"] for row in data["rows"]]

    def text(place: int) -> str:
        return "" if place < 0 else str(data["texts"][place])

    return [
        {
            "prompt": text(item["p"]),
            "reference": text(item["t"]),
            "answers": {label: text(a) for label, a in zip(labels, item["a"], strict=True)},
            "values": dict(zip(labels, item["v"], strict=True)),
        }
        for item in score["items"]
    ]


def test_free_answers_stand_beside_prompt_and_reference(data: dict[str, Any]) -> None:
    fourth = results(data, "generations rouge_l")[3]
    assert fourth["prompt"] == "How long does egg number 3 boil?"
    assert fourth["reference"] == "Put egg 3 into boiling water, wait."
    assert fourth["answers"]["base"].endswith("So says base.")
    assert fourth["answers"]["qlora_nf4"].endswith("So says qlora_nf4.")


def test_the_likeliest_choice_is_the_answer(data: dict[str, Any]) -> None:
    for number, item in enumerate(results(data, "oasst_choice acc")):
        assert item["reference"] == f"the {number}th reply"
        for label, value in item["values"].items():
            assert (item["answers"][label] == item["reference"]) == (value == 1)


def test_a_choice_is_normalised_by_its_length_where_the_metric_is() -> None:
    cells = {"log_likelihoods": [-3.0, -4.0]}
    choices = [" no", " certainly"]
    assert likeliest(cells, choices, "acc") == "no"
    assert likeliest(cells, choices, "acc_norm") == "certainly"


def test_values_are_means_over_the_seeds(tmp_path: Path) -> None:
    values = []
    for seeds in ((0,), (1,), (0, 1)):
        root = tmp_path / str(seeds)
        write_runs(root, [Made("qlora_nf4", seed=seed, seed_noise=0.5) for seed in seeds])
        found = item_data(build_from(root).evidence)
        assert found is not None
        values.append(results(found, "perplexity")[0]["values"]["qlora_nf4"])
    assert values[2] == pytest.approx((values[0] + values[1]) / 2, rel=1e-4)
    assert values[0] != values[1]


def test_small_differences_of_large_values_keep_their_digits(tmp_path: Path) -> None:
    """Log-losses near 10 that differ by some thousandths are subtracted by the page."""
    write_runs(tmp_path, [Made("base", log_ratio=8.0), Made("qlora_nf4", log_ratio=7.82)])
    report = build_from(tmp_path)
    (scoring,) = (one for one in report.evidence.scorings if one.key.title == "perplexity")
    exact = read_results(report.evidence.rows, scoring).values
    found = item_data(report.evidence)
    assert found is not None
    (score,) = (score for score in found["scores"] if score["title"] == "perplexity")
    places = {row["label"]: place for place, row in enumerate(found["rows"])}
    for item in score["items"]:
        base, other = (item["v"][places[label]] for label in ("base", "qlora_nf4"))
        difference = exact["qlora_nf4"][item["id"]] - exact["base"][item["id"]]
        assert other - base == pytest.approx(difference, abs=1e-7)


def test_a_full_page_drops_texts_of_items_on_which_variants_agree(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base"), Made("qlora_nf4", log_ratio=-0.8)])
    found = item_data(build_from(tmp_path).evidence, most=4000)
    assert found is not None
    assert found["left_out"] > 0
    apart: dict[bool, list[float]] = {True: [], False: []}
    for item in results(found, "oasst_choice acc"):
        difference = abs(item["values"]["base"] - item["values"]["qlora_nf4"])
        apart[bool(item["prompt"])].append(difference)
    assert min(apart[True]) >= max(apart[False])
    assert max(apart[True]) == 1


def test_no_text_ends_the_script_or_turns_a_line_round(tmp_path: Path) -> None:
    write_run(tmp_path, Made("qlora_nf4", answers=True, hostile=SECRET))
    page = items_page(build_from(tmp_path))
    assert page is not None
    assert page.count("</script>") == 2
    assert "\u202e" not in page
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert held is not None
    assert "</script><script>alert(1)" in " ".join(json.loads(held[1])["texts"])
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!report\.html")', page), "nothing is fetched"


def test_a_local_report_has_the_page_and_a_published_one_has_no_text(tmp_path: Path) -> None:
    runs = [Made("base", answers=True), Made("qlora_nf4", answers=True, hostile=SECRET)]
    write_runs(tmp_path / "runs", runs)
    report = build_from(tmp_path / "runs")
    folder = tmp_path / "report"
    write_report(report, folder, items_page(report))
    assert 'href="items.html"' in (folder / "report.html").read_text()
    assert "How long does egg number 3 boil?" in (folder / "items.html").read_text()
    stored = [run for run in RunStore(tmp_path / "runs").scan() if isinstance(run, StoredRun)]
    publish_report(stored, ReportRequest(suite="quick"), folder)
    assert not (folder / "items.html").exists(), "an earlier local report leaves none behind"
    assert "items.html" not in (folder / "report.html").read_text()
    for path in folder.rglob("*"):
        assert not path.is_file() or b"How long does egg number" not in path.read_bytes(), path


def test_records_without_items_have_no_page(tmp_path: Path) -> None:
    write_run(tmp_path, Made("qlora_nf4", status="oom"))
    assert items_page(build_from(tmp_path)) is None
    folder = write_run(tmp_path, Made("base"))
    for path in (folder / "items").iterdir():
        path.write_bytes(b"cut short")
    assert items_page(build_from(tmp_path)) is None
