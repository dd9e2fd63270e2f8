"""Data: what a page says of the corpus, and which answers it may show."""

from __future__ import annotations

from pathlib import Path

from harness.records.record import RunRecord
from harness.report.blocks import Code, Details, Figure
from harness.report.data import corpus_section, generations_section, sample_texts
from harness.report.figures.histogram import Histogram
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, build_from, sample_prompts, write_run, write_runs
from tests.report.tables import every_block, said, table_of


def change(folder: Path, **fields: object) -> None:
    record = read_json(folder / "record.json", RunRecord)
    write_json(folder / "record.json", record.model_copy(update=fields))


def test_a_corpus_of_one_s_own_was_used_unchanged(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base")])
    text = said(corpus_section(build_from(tmp_path).evidence))
    assert text.startswith("oasst1-en-validation was used unchanged. 160 conversations to train on")
    assert "28 held out, split by message tree" in text
    assert "ab" * 32 in text


def test_the_bundled_sample_is_called_one(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base", is_sample=True)])
    text = said(corpus_section(build_from(tmp_path).evidence))
    assert "is a sample written for this project, not OASST itself" in text


def test_every_step_of_preparation_says_what_it_left_and_removed(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base")])
    rows = table_of(corpus_section(build_from(tmp_path).evidence), "funnel")
    assert [row["step"] for row in rows] == ["read", "ready trees", "best path"]
    assert rows[0]["tokens"] == "–", "not counted yet"
    assert rows[1]["tokens"] == "200,000"
    assert rows[2]["removed"] == "520 paths that are not the best"


def test_a_step_that_removed_nothing_is_named_below_the_table(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("base"))
    corpus = read_json(folder / "record.json", RunRecord).corpus
    assert corpus is not None
    idle = corpus.funnel[-1].model_copy(update={"step": "language", "removed": ""})
    change(folder, corpus=corpus.model_copy(update={"funnel": (*corpus.funnel, idle)}))
    section = corpus_section(build_from(tmp_path).evidence)
    assert "language" not in [row["step"] for row in table_of(section, "funnel")]
    assert section is not None
    (table,) = [block for block in section.blocks if getattr(block, "name", "") == "funnel"]
    assert "Steps that removed nothing: language." in table.caption  # type: ignore[union-attr]


def test_training_rows_hold_what_the_template_adds_and_the_funnel_says_so(tmp_path: Path) -> None:
    """Else 1,197 tokens of messages would seem to become 2,029 by being cut."""
    folder = write_run(tmp_path, Made("base"))
    corpus = read_json(folder / "record.json", RunRecord).corpus
    assert corpus is not None
    rows = corpus.funnel[-1].model_copy(update={"step": "sequence length", "tokens": 95_000})
    change(folder, corpus=corpus.model_copy(update={"funnel": (*corpus.funnel, rows)}))
    section = corpus_section(build_from(tmp_path).evidence)
    assert section is not None
    (table,) = [block for block in section.blocks if getattr(block, "name", "") == "funnel"]
    assert "what the chat template adds" in table.caption  # type: ignore[union-attr]


def test_lengths_are_drawn_with_where_rows_are_cut(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16", settings=("training.sequence_length=256",))])
    section = corpus_section(build_from(tmp_path).evidence)
    assert section is not None
    (figure,) = [block for block in section.blocks if isinstance(block, Figure)]
    assert isinstance(figure.drawing, Histogram)
    assert figure.drawing.cuts == ((256, "cut at 256"),)
    assert "5 up to 64 tokens" in figure.alt


def test_several_languages_are_counted(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base")])
    rows = table_of(corpus_section(build_from(tmp_path).evidence), "languages")
    assert rows == [
        {"language": "en", "to train on": "150", "held out": "25"},
        {"language": "de", "to train on": "10", "held out": "3"},
    ]


def test_of_several_corpora_the_commonest_is_shown_and_that_is_said(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base"), Made("base_nf4"), Made("lora_bf16", is_sample=True)])
    text = said(corpus_section(build_from(tmp_path).evidence))
    assert text.startswith("oasst1-en-validation")
    assert "Runs used 2 different corpora; the most common is shown." in text


def test_runs_without_a_corpus_have_no_section(tmp_path: Path) -> None:
    change(write_run(tmp_path, Made("base")), corpus=None)
    assert corpus_section(build_from(tmp_path).evidence) is None


def test_answers_of_all_variants_stand_below_one_prompt(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base"), Made("lora_bf16", log_ratio=-0.3)])
    section = generations_section(build_from(tmp_path).evidence)
    assert section is not None
    first, second = [block for block in section.blocks if isinstance(block, Details)]
    shown = [block.text for block in first.blocks if isinstance(block, Code)]
    prompt, reference, *answers = shown
    assert prompt == sample_prompts()[0]
    assert reference == "Put it into boiling water."
    assert [answer.split()[0] for answer in answers] == ["lora_bf16", "base"], "best first"
    text = " ".join(block.text for block in second.blocks if not isinstance(block, Code))  # type: ignore[union-attr]
    assert "12 tokens, cut at the limit" in text


def test_a_long_prompt_is_cut_in_its_heading_only(tmp_path: Path) -> None:
    long = max(sample_texts(), key=len)
    folder = write_run(tmp_path, Made("base"))
    record = read_json(folder / "record.json", RunRecord)
    asked = tuple(one.model_copy(update={"prompt": long}) for one in record.generations[:1])
    change(folder, generations=asked)
    section = generations_section(build_from(tmp_path).evidence)
    assert section is not None
    (found,) = [block for block in section.blocks if isinstance(block, Details)]
    assert len(found.summary) == 90
    assert found.summary.endswith("…")
    assert any(isinstance(block, Code) and block.text == long for block in found.blocks)


def test_texts_of_other_data_are_never_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("base"))
    record = read_json(folder / "record.json", RunRecord)
    private = tuple(
        one.model_copy(update={"prompt": "a customer's letter"}) for one in record.generations
    )
    change(folder, generations=private)
    assert generations_section(build_from(tmp_path).evidence) is None


def test_the_sample_s_texts_are_its_messages(tmp_path: Path) -> None:
    texts = sample_texts()
    assert set(sample_prompts()) < texts
    write_runs(tmp_path, [Made("base")])
    section = generations_section(build_from(tmp_path).evidence)
    assert section is not None
    assert any(isinstance(block, Details) for block in every_block(section.blocks))
