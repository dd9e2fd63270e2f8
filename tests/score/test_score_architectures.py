"""engine = "fast" gives lm-eval's own answers, item by item, on every causal architecture."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance

from harness.records.events import Silence
from harness.score import probe
from harness.score.engine import PlainLM
from harness.score.likelihood import Likelihood, Query
from tests.architectures import ARCHITECTURES, GROUPED, POSITIONS, VOCABULARY, Architecture
from tests.score.conftest import fast_engine

ROPE = {"rope_theta": 10000.0}
MORE = {
    "llama_yarn": Architecture(
        "llama",
        {**GROUPED, "rope_parameters": {
            **ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ),
    "llama_dynamic": Architecture(
        "llama", {**GROUPED, "rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 4.0}}
    ),
    "phi3_longrope": Architecture(
        "phi3",
        {**GROUPED, "original_max_position_embeddings": 100, "rope_parameters": {
            **ROPE, "rope_type": "longrope", "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8, "original_max_position_embeddings": 100}},
    ),
    "llama4_text": Architecture(
        "llama4_text",
        {**GROUPED, "head_dim": 16, "attention_chunk_size": 32, "num_hidden_layers": 4,
         "intermediate_size_mlp": 64, "num_local_experts": 2, "floor_scale": 16,
         "attn_temperature_tuning": True},
    ),
    "gpt_oss": Architecture(
        "gpt_oss",
        {**GROUPED, "head_dim": 16, "sliding_window": 16, "num_local_experts": 4,
         "num_experts_per_tok": 2},
    ),
    "qwen3_next": Architecture(
        "qwen3_next",
        {**GROUPED, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2,
         "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
         "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16,
         "linear_value_head_dim": 16, "num_hidden_layers": 4},
    ),
    "mamba": Architecture(
        "mamba", {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2}
    ),
    "lfm2": Architecture("lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"]}),
    "ministral_mixed": Architecture(
        "ministral",
        {**GROUPED, "head_dim": 16, "sliding_window": 16,
         "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "gemma3n_text": Architecture(
        "gemma3n_text",
        {**GROUPED, "head_dim": 16, "sliding_window": 16, "num_hidden_layers": 4,
         "vocab_size_per_layer_input": VOCABULARY, "num_kv_shared_layers": 0,
         "activation_sparsity_pattern": [0.0] * 4, "laurel_rank": 8,
         "hidden_size_per_layer_input": 16},
    ),
}  # fmt: skip
ALL = {**ARCHITECTURES, **MORE}


def build(name: str, **changes: Any) -> Any:
    """A tiny random model whose answers depend on all of a long prompt."""
    from transformers import AutoConfig, AutoModelForCausalLM

    written = {**ALL[name].written(), **changes}
    config = AutoConfig.for_model(written.pop("model_type"), **written)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    return model.eval()


def make_words() -> Any:
    """A tokenizer whose words are ``w0`` to ``w159``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w3"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="w1", eos_token="w2", pad_token="w2", unk_token="w3"
    )  # fmt: skip


@pytest.fixture(scope="module")
def words() -> Any:
    """One for all tests of this file."""
    return make_words()


def requests(preamble: int = 120) -> list[Instance]:
    """Six questions of four endings after a shared preamble, and four lone short texts."""
    random = np.random.default_rng(0)

    def text(size: int) -> str:
        return " ".join(f"w{n}" for n in random.integers(4, VOCABULARY, size))

    shared = text(preamble)
    asked = []
    for question in range(6):
        stem = f"{shared} {text(15 + question)}"
        asked += [(stem, f" {text(1 + 3 * (question % 2))}") for _ in range(4)]
    asked += [(text(size), f" {text(2)}") for size in (3, 9, 30, 60)]
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(asked)]


def answers(lm: Any, asked: list[Instance]) -> tuple[Any, list[bool]]:
    found = lm.loglikelihood(asked, disable_tqdm=True)
    return np.array([value for value, _ in found]), [greedy for _, greedy in found]


@pytest.mark.parametrize("name", ALL)
def test_the_answers_are_those_of_lm_eval_s_own_backend(name: str, words: Any) -> None:
    model = build(name)
    theirs, their_greedy = answers(PlainLM(copy.deepcopy(model), words), requests())
    ours, our_greedy = answers(fast_engine(model, words), requests())
    # sums over tokens of models whose logits are far apart: 3e-4 of rounding was seen
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)
    assert our_greedy == their_greedy
    assert np.ptp(theirs) > 1  # endings are told apart


WINDOWED = {"window_size": 64, "max_position_embeddings": 1024}
LOCAL = {**WINDOWED, "attention_types": [[["local", "local"], 1]]}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt_neo", WINDOWED),
        ("gpt_neo", LOCAL),
        ("gpt_neo", {"window_size": 200}),  # more tokens in a tree than the model has positions
        ("mistral", {"sliding_window": 64}),
        ("gemma3_text", {"sliding_window": 64}),
        ("mpt", {}),
        ("llama", {}),
    ],
)
def test_the_last_of_many_branches_is_scored_as_the_first(
    name: str, changes: dict[str, Any]
) -> None:
    """The longest comes first, as it would alone: no comparison of it shows what happens later."""
    check_many_branches(build(name, **changes))


@pytest.mark.parametrize("changes", [WINDOWED, LOCAL])
def test_what_only_deep_branches_show_is_noticed(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a model whose mask nobody knows of."""
    monkeypatch.setattr(probe, "_has_masks_of_its_own", lambda _: False)
    likelihood = check_many_branches(build("gpt_neo", **changes))
    assert "differ from the model's own forward pass" in str(likelihood.details["passes_reason"])


@pytest.mark.parametrize("changes", [WINDOWED, LOCAL])
def test_it_is_noticed_in_sixteen_bits_where_words_are_nearly_as_likely_too(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong mask then moves log-probabilities by less than rounding does in a trained model."""
    monkeypatch.setattr(probe, "_has_masks_of_its_own", lambda _: False)
    model = build("gpt_neo", **changes)
    model.get_output_embeddings().weight.data *= 0.1
    likelihood = Likelihood(model.bfloat16(), 4096, Silence())
    assert likelihood.tree is not None
    likelihood.answer([Query(row, np.arange(61, len(row))) for row in many_branches()])
    assert "differ from the model's own forward pass" in str(likelihood.details["passes_reason"])


def many_branches() -> list[Any]:
    """41 texts that share their beginning."""
    drawn = np.random.default_rng(0)
    stem = drawn.integers(4, VOCABULARY, 60)
    rows = [np.concatenate([stem, [3], drawn.integers(4, VOCABULARY, 60)])]
    return rows + [
        np.concatenate([stem, [n], drawn.integers(4, VOCABULARY, 12)]) for n in range(4, 44)
    ]


def check_many_branches(model: Any) -> Likelihood:
    """Score them, and hold each to the model's own forward pass."""
    rows = many_branches()
    likelihood = Likelihood(model, 4096, Silence())
    found = likelihood.answer([Query(row, np.arange(61, len(row))) for row in rows])
    for row, answer in zip(rows, found, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(row[:-1])[None]).logits[0].log_softmax(-1)
        own = logits[np.arange(60, len(row) - 1), row[61:]]
        np.testing.assert_allclose(answer.log_probs, own, rtol=1e-4, atol=1e-3)
    return likelihood


def test_positions_end_before_the_context_does() -> None:
    longest = max(sum(len(part.split()) for part in request.args) for request in requests())
    assert 120 < longest < POSITIONS
