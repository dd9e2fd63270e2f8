"""What a person sees of a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.corpus.conversation import Conversation, Message
from harness.corpus.fields import escaped
from harness.corpus.render import Renderer
from harness.corpus.view import corpus_report, funnel_table, trained_text
from harness.records.corpus_result import CorpusResult, FunnelRow
from harness.spec.registry import load_suite
from harness.spec.suite import Budget, CorpusSpec, Suite


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path / "cache"))


def printed(content: Any, width: int = 160) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(content)
    return capture.get()


def test_the_quick_suites_corpus_is_shown_down_to_its_tokens(chatml_tokenizer: Any) -> None:
    text = printed(corpus_report(load_suite("quick"), 2, Renderer(chatml_tokenizer)))
    for part in (
        "the bundled sample, not OASST itself",
        "Funnel: what was left after each step",
        "deleted by a moderator or its author",
        "sequence length",
        "Languages",
        "Tokens per training conversation",
        "median",
        "over 512",
        "⟦",
        "<|im_end|>⟧",
    ):
        assert part in text


def test_steps_that_took_nothing_away_are_named_in_one_line() -> None:
    rows = [("read", 60, ""), ("deleted", 60, ""), ("held out", 12, "48 trees: to the other sides")]
    funnel = tuple(
        FunnelRow(step=step, trees=n, messages=2 * n, conversations=None, tokens=None, removed=why)
        for step, n, why in rows
    )
    result = CorpusResult(
        name="mine", sha256=None, is_sample=False, train_conversations=48,
        held_out_conversations=12, funnel=funnel,
    )  # fmt: skip
    table = funnel_table(result)
    assert table.row_count == 2
    assert "Steps that took nothing away: deleted" in printed(table)


def test_trained_tokens_are_marked_and_styled(chatml_tokenizer: Any) -> None:
    turns = (Message("user", "Hi", "1"), Message("assistant", "Grüße 🙂 [bold]", "2"))
    sequence = Renderer(chatml_tokenizer).encode(Conversation("c", "t", "en", turns))
    text = trained_text(sequence, chatml_tokenizer)
    assert text.plain.endswith("<|im_start|>assistant\n⟦Grüße 🙂 [bold]<|im_end|>⟧\n")
    styled = [
        text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style)
    ]
    assert styled == ["⟦Grüße 🙂 [bold]<|im_end|>⟧"]


def test_control_characters_of_the_data_do_not_reach_the_terminal() -> None:
    assert escaped("a\x1b[31mb\x07\u202ec\td\n") == "a\\x1b[31mb\\x07\\x202ec\td\n"


def test_a_suite_of_real_files_is_shown(oasst: Path, chatml_tokenizer: Any) -> None:
    suite = Suite(
        name="real",
        description="real",
        model="smollm2_135m_instruct",
        corpus=CorpusSpec(source=str(oasst / "oasst2-trees.stripped.jsonl.gz"), tree_states=()),
        budget=Budget(steps=1),
        training={"sequence_length": 256, "overflow": "drop"},
    )
    text = printed(corpus_report(suite, 1, Renderer(chatml_tokenizer)))
    assert "conversations dropped" in text
    assert "over 256 (drop)" in text
    assert " es " in text
