"""The fast engine gives lm-eval's own answers on stock tasks read from a data folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.errors import DivergedError, UserError
from harness.records.record import Score
from harness.score.catalogue import load_task
from harness.score.engine import PlainLM
from harness.score.evaluation import evaluate
from harness.score.items import Items, Place
from harness.score.samples import joined, write_scores
from harness.spec.suite import Task
from tests.score.conftest import fast_engine, make_model


def score(lm: Any, task: Task, data: Path, folder: Path) -> list[Score]:
    with load_task(task, data, folder) as loaded:
        outcome = evaluate(task, loaded, lm, {"data_folder": str(data)})
        return write_scores(outcome, Place(folder, "after", "training"))


def both(
    task: Task, data: Path, tokenizer: Any, folder: Path
) -> tuple[list[Score], list[Score], list[tuple[dict[str, Any], dict[str, Any]]]]:
    model = make_model()
    fast = score(fast_engine(model, tokenizer), task, data, folder / "fast")
    plain = score(PlainLM(model, tokenizer), task, data, folder / "plain")
    rows = [
        (
            pq.read_table(folder / "fast" / str(f.items)).to_pydict(),
            pq.read_table(folder / "plain" / str(p.items)).to_pydict(),
        )
        for f, p in zip(fast, plain, strict=True)
    ]
    return fast, plain, rows


@pytest.mark.parametrize(
    "task",
    [
        Task(name="openbookqa", num_fewshot=5, limit=4),
        Task(name="mmlu_anatomy", num_fewshot=5, limit=4),
        Task(name="lambada_openai", limit=4),
        Task(name="winogrande", limit=4),
        Task(name="truthfulqa_mc2", limit=2),
        Task(name="arc_easy", num_fewshot=2, limit=3, apply_chat_template=True),
    ],
    ids=lambda task: task.name,
)
def test_log_likelihoods(task: Task, shared_data: Path, tokenizer: Any, tmp_path: Path) -> None:
    fast, plain, rows = both(task, shared_data / "lm_eval", tokenizer, tmp_path)
    assert [(s.task, s.metric, s.n) for s in fast] == [(s.task, s.metric, s.n) for s in plain]
    for ours, theirs in rows:
        for key in ("item", "doc_hash", "prompt", "continuations", "greedy", "target"):
            assert ours[key] == theirs[key]
        for left, right in zip(ours["log_likelihoods"], theirs["log_likelihoods"], strict=True):
            np.testing.assert_allclose(left, right, atol=5e-4)
            assert np.argmax(left) == np.argmax(right)


def test_rolling(shared_data: Path, tokenizer: Any, tmp_path: Path) -> None:
    fast, plain, _ = both(
        Task(name="wikitext", limit=2), shared_data / "lm_eval", tokenizer, tmp_path
    )
    for left, right in zip(fast, plain, strict=True):
        assert left.value == pytest.approx(right.value, rel=1e-5)
    assert [s.metric for s in fast if s.headline] == ["bits_per_byte"]
    assert fast[2].unit == "bits per byte"
    assert fast[0].details["dataset"] == {
        "path": "EleutherAI/wikitext_document_level",  # its name, although a copy was read
        "config": "wikitext-2-raw-v1",
        "split": "test",
    }


def test_group_aggregates_its_tasks(shared_data: Path, tokenizer: Any, tmp_path: Path) -> None:
    lm = fast_engine(make_model(), tokenizer)
    task = Task(name="mmlu_other_group", limit=2)
    with pytest.raises(UserError, match="unknown task"):
        score(lm, task, shared_data / "lm_eval", tmp_path)
    task = Task(name="mmlu_other", limit=2)
    scores = score(lm, task, shared_data / "lm_eval", tmp_path)
    leaves = [s for s in scores if s.task != "mmlu_other"]
    (group,) = [s for s in scores if s.task == "mmlu_other"]
    assert len(leaves) == group.details["tasks"] == 13
    assert group.n == 26
    assert group.value == pytest.approx(sum(s.value for s in leaves) / 13)
    assert [s.task for s in scores if s.headline] == ["mmlu_other"]


def test_the_error_of_an_unweighted_group_is_that_of_a_mean_of_means() -> None:
    rng = np.random.default_rng(0)
    parts = {
        f"task{n}": Items(
            [str(i) for i in range(size)], [str(i) for i in range(size)],
            (rng.random(size) < 0.3 + 0.1 * n).astype(float), np.ones(size))
        for n, size in enumerate((20, 200, 2000))
    }  # fmt: skip
    group = joined(parts, by_size=False)
    leaves = [items.numerator for items in parts.values()]
    assert group.value("identity") == pytest.approx(np.mean([leaf.mean() for leaf in leaves]))
    direct = math.sqrt(sum(leaf.var(ddof=1) / len(leaf) for leaf in leaves)) / len(leaves)
    assert group.standard_error("identity") == pytest.approx(direct, rel=0.10)


def test_requests_over_the_context_are_counted(
    shared_data: Path, tokenizer: Any, tmp_path: Path
) -> None:
    model = make_model(max_position_embeddings=128)
    task = Task(name="openbookqa", num_fewshot=5, limit=2)
    found = []
    for lm in (fast_engine(model, tokenizer), PlainLM(model, tokenizer)):
        scores = score(lm, task, shared_data / "lm_eval", tmp_path / type(lm).__name__)
        found.append((scores[0].details["cut_requests"], scores[0].details["cut_tokens"]))
    assert found[0] == found[1]
    assert found[0][0] == 8
    assert found[0][1] > 0


@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_nan_is_divergence(engine: str, shared_data: Path, tokenizer: Any, tmp_path: Path) -> None:
    import torch

    model = make_model()
    lm = fast_engine(model, tokenizer) if engine == "fast" else None
    lm = lm or PlainLM(model, tokenizer)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="log-likelihood"):
        score(lm, Task(name="openbookqa", limit=2), shared_data / "lm_eval", tmp_path)


def test_tokenizer_is_left_alone(tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    PlainLM(make_model(), bare)
    assert bare.pad_token is None


@pytest.mark.parametrize("bos", [None, True, False])
def test_texts_tokenised_together_have_lm_eval_s_own_tokens(bos: bool | None) -> None:
    """With and without a start token in front, in the text or added by the tokenizer."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "b": 2, "?": 3}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="?")
    lm = fast_engine(make_model(), tokenizer)
    lm.add_bos_token = bos
    pairs = [("a b ", "a"), ("<s> a", " b"), ("b", " c a"), ("a b", "\nb"), ("", "a")]
    asked = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    seen: dict[str, list[int]] = {}
    together = lm._encode_all

    def watched(texts: list[str]) -> dict[str, list[int]]:
        seen.update(together(texts))
        return seen

    lm._encode_all = watched
    lm.loglikelihood(asked, disable_tqdm=True)
    assert len(seen) == 7
    for text, tokens in seen.items():
        assert tokens == HFLM.tok_encode(lm, text)


def test_pages_are_tokenised_together(tokenizer: Any) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = fast_engine(make_model(), tokenizer)
    pages = ["a cat and a dog", "a dog", "a cat and a dog"]
    asked = [Instance("loglikelihood_rolling", {}, (page,), i) for i, page in enumerate(pages)]
    batches: list[list[str]] = []
    own = lm._in_batches

    def watched(texts: Any, settings: Any) -> list[list[int]]:
        batches.append(list(texts))
        return own(texts, settings)

    lm._in_batches = watched
    found = lm.loglikelihood_rolling(asked, disable_tqdm=True)
    assert [batch for batch in batches if batch] == [pages[:2]]
    assert found == pytest.approx(PlainLM(lm.model, tokenizer).loglikelihood_rolling(asked, True))
    assert lm.tok_encode(pages[0]) == HFLM.tok_encode(lm, pages[0])


def test_a_tied_embedding_that_peft_has_wrapped_can_be_scored(tokenizer: Any) -> None:
    from lm_eval.api.instance import Instance
    from peft import LoraConfig, get_peft_model

    model = make_model()
    assert model.config.tie_word_embeddings
    wrapped = get_peft_model(model, LoraConfig(trainable_token_indices=[1, 2]))
    asked = [Instance("loglikelihood", {}, ("a cat", " and a dog"), 0)]
    (plain,) = PlainLM(wrapped.eval(), tokenizer).loglikelihood(asked)
    (fast,) = fast_engine(wrapped, tokenizer).loglikelihood(asked)
    assert fast[0] == pytest.approx(plain[0], abs=1e-4)
    assert "tie_weights" not in vars(wrapped)
