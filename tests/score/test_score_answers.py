"""Answers of generate_until tasks are, to the letter, those of lm-eval's own backend."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.api.instance import Instance

from harness.errors import UserError
from harness.score import answers, rows
from harness.score.body import TreeBody
from harness.score.catalogue import load_task
from harness.score.engine import OWN, PlainLM
from harness.score.evaluation import evaluate
from harness.score.items import Place
from harness.score.samples import write_scores
from harness.spec.suite import Task
from tests.architectures import VOCABULARY
from tests.score.conftest import fast_engine, make_model
from tests.score.test_score_architectures import ALL, build, make_words

TOGETHER = {"answers": "side by side after shared prefixes"}


@pytest.fixture(scope="module")
def words() -> Any:
    return make_words()


def requests(count: int = 20, preamble: int = 70, limit: int = 24) -> list[Instance]:
    """Questions of unequal length after a preamble, two of them the same; each ends elsewhere."""
    random = np.random.default_rng(0)

    def text(size: int) -> str:
        return " ".join(f"w{n}" for n in random.integers(4, VOCABULARY, size))

    shared = text(preamble)
    asked = [f"{shared} {text(1 + index % 9)}" for index in range(count - 1)]
    asked += asked[-1:]
    settings = {"until": ["w7", "w11 "], "do_sample": False, "max_gen_toks": limit}
    return [as_request(context, settings) for context in asked]


def as_request(context: str, settings: dict[str, Any]) -> Instance:
    return Instance("generate_until", {}, (context, copy.deepcopy(settings)), 0)


def check(model: Any, tokenizer: Any, asked: list[Instance]) -> dict[str, Any]:
    """Hold the fast engine to lm-eval's backend, and return how it answered."""
    theirs = PlainLM(copy.deepcopy(model), tokenizer).generate_until(asked, True)
    lm = fast_engine(model, tokenizer)
    assert lm.generate_until(asked, True) == theirs
    assert len(set(theirs)) > 1, "prompts count"
    return lm.answer_details


FEW = ("llama", "gpt_neox", "qwen2_window", "phi", "gemma2", "gpt2")
OTHERWISE = (
    "gpt_neo", "gptj", "codegen", "falcon", "falcon_alibi", "mpt", "falcon_h1", "recurrent_gemma",
    "mamba2", "phi3_longrope", "llama4_text", "gpt_oss", "qwen3_next", "mamba", "lfm2", "xglm",
    "bloom",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
)
def test_every_architecture(name: str, words: Any) -> None:
    details = check(build(name), words, requests())
    assert (details == TOGETHER) == (name not in OTHERWISE), details
    assert (details["answers"] == OWN) == ("answers_reason" in details)


def test_adapters(words: Any) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(build("qwen2_window"), config).eval()
    assert check(model, words, requests()) == TOGETHER


@pytest.mark.parametrize("kind", ["PrefixTuning", "PromptTuning"])
def test_a_soft_prompt_that_matters(words: Any, kind: str) -> None:
    import peft

    base = build("llama")
    config = getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", num_virtual_tokens=5)
    model = peft.get_peft_model(copy.deepcopy(base), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "prompt_encoder" in name:
                parameter.copy_(3 * torch.randn_like(parameter))
    asked = requests(8)
    details = check(model, words, asked)
    assert details == {
        "answers": OWN, "answers_reason": "a soft prompt precedes every sequence"
    }  # fmt: skip
    bare = fast_engine(base, words).generate_until(asked, True)
    assert bare != fast_engine(model, words).generate_until(asked, True)


def test_a_four_bit_base(model_folder: Any, tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from harness.quantize.bitsandbytes import keep_as_quantized

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = AutoModelForCausalLM.from_pretrained(
        model_folder, quantization_config=settings, dtype=torch.float32, device_map={"": "cpu"}
    )
    keep_as_quantized(model)
    asked = requests(6, limit=12)
    theirs = PlainLM(model, tokenizer).generate_until(asked, True)
    lm = fast_engine(model.eval(), tokenizer)
    assert lm.generate_until(asked, True) == theirs
    assert lm.answer_details == TOGETHER


def test_rows_leave_and_the_next_enter(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two preambles and prompts that share nothing, three rows at a time, answers of any length."""
    monkeypatch.setattr(answers, "MOST_ROWS", {"cpu": 3})
    asked = [*requests(9, 80), *requests(9, 100), *requests(4, 0)]
    for index, request in enumerate(asked):
        request.args[1]["max_gen_toks"] = 1 + index % 7 * 5
    assert check(build("llama"), words, asked) == TOGETHER


@pytest.mark.parametrize(("preamble", "budget", "passes"), [(0, 512, 0), (80, 512, 0), (80, 99, 1)])
def test_what_prompts_share_has_a_pass_of_its_own_only_where_one_is_too_small(
    words: Any, monkeypatch: pytest.MonkeyPatch, preamble: int, budget: int, passes: int
) -> None:
    lm = fast_engine(build("llama"), words)
    monkeypatch.setattr(lm._likelihood, "_budget", budget)
    run: list[int] = []
    extend = TreeBody.extend

    def counted(self: TreeBody, cache: Any, keep: int, tokens: Any) -> Any:
        run.append(len(tokens))
        return extend(self, cache, keep, tokens)

    monkeypatch.setattr(TreeBody, "extend", counted)
    asked = requests(9, preamble)
    theirs = PlainLM(build("llama"), words).generate_until(asked, True)
    assert lm.generate_until(asked, True) == theirs
    assert len(run) == passes


def test_prompts_are_tokenised_once(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = fast_engine(build("llama"), words)
    asked = requests(6)
    tokenised: list[str] = []
    batches = lm._in_batches

    def counted(texts: Any, settings: dict[str, Any]) -> list[list[int]]:
        tokenised.extend(texts)
        return batches(texts, settings)

    monkeypatch.setattr(lm, "_in_batches", counted)
    monkeypatch.setattr(lm, "tok_encode", lambda text, **_: pytest.fail(f"{text[:20]} again"))
    for turn in (1, 2):  # nothing of one set of requests is kept for the next
        lm.generate_until(asked, True)
        whole = [text for text in tokenised if text in {request.args[0] for request in asked}]
        assert len(whole) == turn * len(set(whole)) > 0


def test_prompts_are_divided_by_what_they_share() -> None:
    drawn = np.random.default_rng(0).integers(4, 100, (2, 200))
    rows = sorted(
        [np.append(drawn[kind], [kind, index]) for kind in (0, 1) for index in range(9)]
        + [np.array([1, 2, index]) for index in range(3)],
        key=lambda row: row.tolist(),
    )
    found = answers.prefix_groups(rows)
    assert sorted((len(family.members), family.prefix) for family in found) == [
        (3, 0), (9, 201), (9, 201)
    ]  # fmt: skip
    assert sorted(place for family in found for place in family.members) == list(range(21))


@pytest.mark.parametrize(
    "settings",
    [
        {"until": []},
        {"until": ""},
        {"until": "w7", "max_new_tokens": 9, "temperature": 0.0},
        {"max_gen_toks": 1},
        {"until": ["w12 w", "<|nothing|>"], "top_p": 0.9, "max_gen_toks": 30},
    ],
)
def test_settings_of_a_task(words: Any, settings: dict[str, Any]) -> None:
    settings = {"max_gen_toks": 20, **settings}
    asked = [as_request(request.args[0], settings) for request in requests(5)]
    model = build("llama")
    theirs = PlainLM(copy.deepcopy(model), words).generate_until(asked, True)
    lm = fast_engine(model, words)
    assert lm.generate_until(asked, True) == theirs
    assert lm.answer_details == TOGETHER


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"do_sample": True, "temperature": 0.7}, "do_sample = True, temperature = 0.7"),
        ({"num_beams": 2}, "num_beams = 2"),
    ],
)
def test_what_is_not_greedy_is_left_to_lm_eval(
    words: Any, settings: dict[str, Any], reason: str
) -> None:
    asked = requests(2, limit=3)
    for request in asked:
        request.args[1].pop("do_sample")
        request.args[1].update(settings)
    lm = fast_engine(build("llama"), words)
    lm.generate_until(asked, True)
    assert lm.answer_details == {"answers": OWN, "answers_reason": f"asked for with {reason}"}


def test_text_of_bytes_ends_where_lm_eval_ends_it(tokenizer: Any) -> None:
    """Stop strings within a token, over several, special ones, and a model's own end."""
    model = make_model(7, tie_word_embeddings=False)
    model.generation_config.eos_token_id = [5, 9]
    plain, fast = PlainLM(copy.deepcopy(model), tokenizer), fast_engine(model, tokenizer)
    texts = [request.args[0] for request in requests(6)]
    (tried,) = plain.generate_until([as_request(texts[0], {"max_gen_toks": 20})], True)
    for until in ([tried[3:5], tried[9:14]], ["<|im_start|>"], ["<|endoftext|>", tried[7]]):
        asked = [as_request(text, {"until": until, "max_gen_toks": 20}) for text in texts]
        theirs = plain.generate_until(asked, True)
        assert fast.generate_until(asked, True) == theirs
        assert fast.answer_details == TOGETHER
        assert len(set(map(len, theirs))) > 1


def test_prompts_longer_than_the_context_are_cut_and_counted(words: Any) -> None:
    model = build("llama")  # has 256 positions
    asked = requests(4, preamble=250)
    ours, theirs = fast_engine(model, words), PlainLM(copy.deepcopy(model), words)
    assert ours.generate_until(asked, True) == theirs.generate_until(asked, True)
    assert ours.cut_requests == theirs.cut_requests == 4
    assert ours.cut_tokens == theirs.cut_tokens > 4 * 18
    with pytest.raises(UserError, match="an answer of up to 256 tokens"):
        ours.generate_until(requests(2, limit=256), True)


def test_answers_that_are_not_the_model_s_own_are_noticed(
    words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a model whose positions nobody knows of."""
    step = rows.Rows.step

    def misplaced(self: rows.Rows) -> None:
        self.lengths.remainder_(17)
        step(self)

    monkeypatch.setattr(rows.Rows, "step", misplaced)
    model, asked = build("llama"), requests(4)
    theirs = PlainLM(copy.deepcopy(model), words).generate_until(asked, True)
    lm = fast_engine(model, words)
    assert lm.generate_until(asked, True) == theirs
    assert "not the model's own" in str(lm.answer_details["answers_reason"])


def test_scores_of_a_task_are_the_same_and_say_how_it_was_answered(
    shared_data: Path, tokenizer: Any, tmp_path: Path
) -> None:
    task = Task(name="gsm8k_cot", num_fewshot=2, limit=5)
    model = make_model(tie_word_embeddings=False)
    found = []
    for lm in (PlainLM(copy.deepcopy(model), tokenizer), fast_engine(model, tokenizer)):
        folder = tmp_path / type(lm).__name__
        with load_task(task, shared_data / "lm_eval", folder) as loaded:
            for leaf in loaded.tasks.values():
                leaf.set_config("generation_kwargs", {"max_gen_toks": 8}, update=True)
            outcome = evaluate(task, loaded, lm, {})
            scores = write_scores(outcome, Place(folder, "after", "training"))
        table = pq.read_table(folder / str(scores[0].items)).to_pydict()
        found.append((table["answer"], [score.value for score in scores]))
        assert scores[0].details["answers"] == lm.answer_details["answers"]
        assert "passes" not in scores[0].details
        assert {score.metric for score in scores} == {
            "exact_match@strict-match",
            "exact_match@flexible-extract",
        }
    assert found[0] == found[1]
    assert len(set(found[0][0])) > 1
