"""A study's page: its table, what an unfinished one shows, and its curves."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report.blocks import Block, Figure, Prose, Table
from harness.report.figures.lines import Curves
from harness.report.figures.multiples import Multiples
from harness.studies.answer import answer
from harness.studies.page import MOST_CURVES, StudyPage, make_page
from harness.studies.steering import Decision, Steering
from tests.studies.stub import Bench, World

WORSE = World(worse={"qlora_nf4": 0.05})


def page_of(bench: Bench) -> StudyPage:
    return make_page(bench.agenda(), bench.steering)


def blocks_of(page: StudyPage, key: str) -> tuple[Block, ...]:
    (section,) = (section for section in page.sections if section.key == key)
    return section.blocks


def cells_of(page: StudyPage, label: str) -> dict[str, str]:
    """A row of the table of variants, by column."""
    (table,) = (block for block in blocks_of(page, "variants") if isinstance(block, Table))
    (row,) = (row for row in table.rows if row[0].text == label)
    return {column.title: cell.text for column, cell in zip(table.columns, row, strict=True)}


def test_the_table_has_four_columns_for_each_setting(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, WORSE)
    bench.finish()
    found = cells_of(page_of(bench), "qlora_nf4")
    assert list(found) == [
        "variant",
        *(
            column.format(setting)
            for setting in ("default", "best")
            for column in (
                "{} rate",
                "perplexity at {}",
                "difference at {}",
                "verdict at {}, seeds",
            )
        ),
    ]
    assert found["verdict at best, seeds"].startswith("worse, ")
    assert "\N{NO-BREAK SPACE}seed" in found["verdict at best, seeds"]
    assert "so far" not in found["difference at best"]


def test_an_unfinished_study_shows_differences_without_a_verdict(tmp_path: Path) -> None:
    """Two of three variants have all runs of the first look; the third is still at its own."""
    bench = Bench.of(
        tmp_path, WORSE, variants=["lora_bf16", "qlora_nf4", "full_finetune"], tune={"trials": 1}
    )
    for job in bench.agenda().jobs:
        if job.arm != "full_finetune":
            bench.executor.run(job.plan)
    agenda = bench.agenda()
    assert not agenda.finished
    found = cells_of(page_of(bench), "qlora_nf4")
    (difference,) = (text for name, text in found.items() if name.startswith("difference at def"))
    assert difference.endswith(" so far")
    assert difference.startswith("+")
    (verdict,) = (text for name, text in found.items() if name.startswith("verdict at def"))
    assert verdict.startswith("more runs are to come, ")
    waiting = cells_of(page_of(bench), "full_finetune")
    assert "so far" not in " ".join(waiting.values()), "without a run there is no difference"
    assert answer(agenda).sureness[0] == "Nothing is concluded yet."


def test_a_study_that_concludes_nothing_promises_nothing_of_conclusions(tmp_path: Path) -> None:
    """All its seeds are run, and the items keep the comparison open."""
    bench = Bench.of(tmp_path, World(item_sd=0.05), variants=["lora_bf16", "qlora_nf4"])
    sure = answer(bench.finish()).sureness
    assert sure[0] == "Nothing is concluded. Intervals hold at all looks together."
    assert sure[1] == "An undecided comparison shows neither a difference nor its absence."
    assert not any("chance" in text for text in sure)


def test_only_what_is_concluded_is_counted_as_a_conclusion(tmp_path: Path) -> None:
    """Of two variants one is dropped before it is run."""
    bench = Bench.of(
        tmp_path, WORSE, variants=["lora_bf16", "qlora_nf4", "full_finetune"], tune={"trials": 1}
    )
    bench.steering = Steering((Decision(time="now", kind="drop", value="full_finetune"),))
    sure = answer(bench.finish()).sureness
    assert sure[0].startswith("The chance that this conclusion is wrong, ")
    assert sure[1] == "An undecided comparison shows neither a difference nor its absence."


def what_tuning_changes(folder: Path, world: World) -> list[str]:
    bench = Bench.of(folder, world)
    bench.finish()
    texts = [
        block.text for block in blocks_of(page_of(bench), "variants") if isinstance(block, Prose)
    ]
    return [text for text in texts if "uning changes" in text or text.startswith("Not decided")]


def test_tuning_changes_a_conclusion_only_where_both_are_decided(tmp_path: Path) -> None:
    """At the default rate one variant is far worse; at its best it is equal, if items show it."""
    rates = {"qlora_nf4": 3.2e-5, "lora_bf16": 2e-4}
    (told,) = what_tuning_changes(tmp_path / "shown", World(rates=rates, item_sd=0.001))
    assert told.endswith(" about qlora_nf4 (worse at the default, equivalent at its best).")
    assert what_tuning_changes(tmp_path / "not_shown", World(rates=rates, item_sd=0.05)) == [
        "Where both are decided, tuning changes no conclusion.",
        "Not decided at the default, at the best, or at either: qlora_nf4.",
    ]


@pytest.mark.parametrize("more", [0, MOST_CURVES - 1])
def test_many_curves_have_panels_of_their_own(tmp_path: Path, more: int) -> None:
    ranks = [{"variant": "lora_bf16", "settings": {"adapter.r": 2 + r}} for r in range(more)]
    variants = ["lora_bf16", "qlora_nf4", *ranks]
    bench = Bench.of(tmp_path, WORSE, variants=variants, tune={"trials": 2})
    bench.finish()
    (figure,) = (b for b in blocks_of(page_of(bench), "rates") if isinstance(b, Figure))
    assert isinstance(figure.drawing, Multiples if more else Curves)
    if isinstance(figure.drawing, Multiples):
        assert figure.drawing.reference == "lora_bf16"
        assert figure.caption.endswith("; the curve of lora_bf16 is grey in every panel")
        assert len(figure.drawing.lines) == 2 + more
        marks = {line.label: line.mark for line in figure.drawing.lines}
        assert len(set(marks.values())) == 2, "LoRA of any rank looks alike, QLoRA does not"
        assert [name for _, name in figure.drawing.key] == [
            "LoRA family",
            "LoRA family, 4-bit base",
        ]
        assert set(marks.values()) == {mark for mark, _ in figure.drawing.key}
        assert next(iter(marks)) == "lora_bf16"
        assert list(marks)[-1] == "qlora_nf4"


def test_widened_searches_stand_in_one_sentence(tmp_path: Path) -> None:
    """All whose best rate lay at the edge are told at once, each with the rate tried beyond it."""
    world = World(rates={"lora_bf16": 1e-2, "qlora_nf4": 1e-2})
    bench = Bench.of(tmp_path, world)
    bench.finish()
    texts = [b.text for b in blocks_of(page_of(bench), "rates") if isinstance(b, Prose)]
    told = [text for text in texts if "lay at the edge" in text]
    assert len(told) == 1
    assert "lora_bf16 (" in told[0]
    assert "qlora_nf4 (" in told[0]
