"""Facts: what a card states of a run, in names that the hub knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.deploy.facts import ResultFacts, facts_of, form_name, metadata, result_files
from harness.records.record import RunRecord
from harness.records.store import RunFolder, StoredRun
from harness.spec.form import parse_form
from harness.spec.model import HubSource
from harness.spec.storage import read_json
from tests.report.records import Made, write_run

HUB = HubSource(kind="hub", repository="owner/base", revision="f" * 40)


def stored(root: Path, made: Made = Made("qlora_nf4")) -> StoredRun:  # noqa: B008 - it is frozen
    folder = RunFolder(write_run(root, made))
    return StoredRun(folder, read_json(folder.record, RunRecord))


def facts(root: Path, form: str = "training", **plan: object) -> ResultFacts:
    run = stored(root)
    record = run.record.model_copy(update={"plan": run.record.plan.model_copy(update=plan)})
    return facts_of(StoredRun(run.folder, record), parse_form(form))


def on_hub(run: StoredRun) -> dict[str, object]:
    model = run.record.plan.model.model_copy(update={"source": HUB, "license": "mit"})
    return {"model": model}


def test_scores_come_with_their_intervals(tmp_path: Path) -> None:
    found = facts(tmp_path)
    assert [item.name for item in found.measured] == ["perplexity", "oasst_choice acc"]
    for item in found.measured:
        assert item.interval is not None
        low, high = item.interval
        assert low < item.value.value < high


def test_few_items_give_no_interval(tmp_path: Path) -> None:
    run = stored(tmp_path, Made("qlora_nf4", trees=4))
    found = facts_of(run, parse_form("training"))
    assert found.measured[0].interval is None


def test_a_form_without_scores_has_those_of_the_model_as_trained(tmp_path: Path) -> None:
    found = facts(tmp_path, "merged")
    assert (found.form.name, found.scored.name) == ("merged", "training")


@pytest.mark.parametrize(
    ("form", "library", "relation"),
    [
        ("training", "peft", "adapter"),
        ("merged", "transformers", "merge"),
        ("merged_dequantized", "transformers", "merge"),
        ("merged_4bit", "transformers", "quantized"),
        ("gguf:Q4_K_M", "gguf", "quantized"),
    ],
)
def test_a_form_is_named_as_the_hub_names_it(
    tmp_path: Path, form: str, library: str, relation: str
) -> None:
    found = metadata(facts(tmp_path, form, **on_hub(stored(tmp_path))))
    assert found.library_name == library
    assert found.base_model == "owner/base"
    assert found.base_model_relation == relation
    assert found.license == "mit"


def test_a_base_that_is_not_on_the_hub_has_no_name_there(tmp_path: Path) -> None:
    found = metadata(facts(tmp_path))
    assert found.base_model is None
    assert found.base_model_relation is None
    assert found.datasets is None
    assert found.language == ["en", "de"]
    assert found.tags == ["finetune-harness", "lora"]


def test_a_licence_that_the_hub_does_not_know_keeps_its_name(tmp_path: Path) -> None:
    run = stored(tmp_path)
    model = run.record.plan.model.model_copy(update={"license": "My Own Licence"})
    found = metadata(facts(tmp_path, model=model))
    assert found.license == "other"
    assert found.license_name == "My Own Licence"


def test_metrics_name_their_data(tmp_path: Path) -> None:
    run = stored(tmp_path)
    source = "hub:owner/data@" + "e" * 40
    corpus = run.record.plan.corpus.model_copy(update={"source": source})
    found = metadata(facts(tmp_path, corpus=corpus, corpus_sha256=None))
    assert found.datasets == ["owner/data"]
    perplexity, choice = found.eval_results
    assert perplexity.dataset_type == "owner/data"
    assert perplexity.dataset_revision == "e" * 40
    assert perplexity.metric_args["items"] == 84
    assert choice.dataset_type == "oasst_choice"


def test_no_path_of_this_machine_is_stated(tmp_path: Path) -> None:
    run = stored(tmp_path)
    corpus = run.record.plan.corpus.model_copy(update={"source": "/home/me/private/trees.jsonl"})
    found = facts(tmp_path, corpus=corpus)
    assert "/home/me" not in found.plan.model_dump_json()
    assert "/home/me" not in metadata(found).to_yaml()


def test_only_tasks_on_a_data_set_of_the_hub_have_a_results_file(tmp_path: Path) -> None:
    run = stored(tmp_path)
    assert result_files(facts_of(run, parse_form("training"))) == {}
    details = {"dataset": {"path": "owner/arc"}, "num_fewshot": 5, "documents": 100}
    scores = tuple(
        score.model_copy(update={"details": details}) if score.task == "oasst_choice" else score
        for score in run.record.scores
    )
    asked = StoredRun(run.folder, run.record.model_copy(update={"scores": scores}))
    (name,) = found = result_files(facts_of(asked, parse_form("training")))
    assert name == "owner__arc.yaml"
    assert "5-shot" in found[name]
    assert "84 of 100 items" in found[name]
    assert "scored as adapter on its own base" in found[name]


def test_the_adapter_s_form_has_words_of_its_own() -> None:
    assert form_name("training") == "adapter on its own base"
    assert form_name("gguf:Q8_0") == "gguf:Q8_0"
