"""Engine: lm-eval language models over a live model, plain ("hf") and prefix-sharing ("fast")."""

# ruff: noqa: FBT001, FBT002 - the methods have the signatures that lm-eval calls
from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix
from pydantic import JsonValue

from harness.errors import RunError, UserError
from harness.score.batched_answers import BatchedAnswers
from harness.score.beginnings import encode_sharing
from harness.score.likelihood import Likelihood, Query
from harness.score.probe import sees_all, soft_prompt_tokens
from harness.score.until import GenerationSettings

Encoded = tuple[tuple[str, str], list[int], list[int]]
GENERATED_AT_ONCE = 16
TOKENISED_AT_ONCE = 256  # texts
OWN = "lm-eval's own"


class PlainLM(HFLM):  # type: ignore[misc]  # lm_eval is untyped
    """lm-eval's own backend over a live model, which also counts the requests it cuts.

    A live object is passed rather than a path, so nothing is loaded twice, no embedding is
    resized, and a quantized base stays quantized. Batch size is one: padding changes results.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Take a transformers or PEFT model and its tokenizer; the tokenizer is not changed."""
        self._virtual_tokens = soft_prompt_tokens(model)
        before = {name: tensor.data_ptr() for name, tensor in model.named_parameters()}
        with _tied_as_it_is(model):
            super().__init__(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=1)
        if before != {name: tensor.data_ptr() for name, tensor in model.named_parameters()}:
            raise RunError("lm-eval tied or replaced weights of the model it was given")
        self.batch_size_per_gpu: int = 1
        self.cut_requests = 0
        self.cut_tokens = 0
        self.answer_details: dict[str, JsonValue] = {"answers": OWN}

    @property
    def details(self) -> dict[str, JsonValue]:
        """How log-likelihoods were computed, for the details of a score."""
        found: dict[str, JsonValue] = {"passes": OWN}
        return found | ({"virtual_tokens": self._virtual_tokens} if self._virtual_tokens else {})

    @property
    def max_length(self) -> int:
        """The model's context, as lm-eval finds it, less the virtual tokens before every text."""
        return int(super().max_length) - self._virtual_tokens

    def _loglikelihood_tokens(
        self, requests: list[Encoded], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        self._count_cuts(requests)
        found: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, disable_tqdm=disable_tqdm, override_bs=override_bs
        )
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """See lm-eval's; prompts that it cuts are counted."""
        self._count_cut_prompts(requests)
        found: list[str] = super().generate_until(requests, disable_tqdm)
        return found

    def wanted(self, settings: dict[str, Any]) -> GenerationSettings:
        """What a request's settings ask for."""
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        return GenerationSettings.of(settings, self.max_gen_toks, end)

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of prompts to be continued, as lm-eval has them of each alone."""
        marked = [
            has_bos_prefix(text, getattr(self.tokenizer, "bos_token", None)) for text in texts
        ]
        found = self._tokenised(texts, marked)
        return [found[text] for text in texts]

    def _count_cut_prompts(self, requests: Sequence[Any]) -> None:
        texts = list(dict.fromkeys(request.args[0] for request in requests))
        sizes = dict(zip(texts, map(len, self.prompts(texts)), strict=True))
        for context, settings in (request.args for request in requests):
            limit = self.wanted(settings).limit
            if limit >= self.max_length:
                raise UserError(
                    f"an answer of up to {limit} tokens",
                    expected=f"fewer than {self.max_length}, the model's context",
                    hint="leave the task out, or take a model with a longer context",
                )
            surplus = sizes[context] + limit - self.max_length
            if surplus > 0:
                self.cut_requests += 1
                self.cut_tokens += surplus

    def _tokenised(self, texts: Sequence[str], marked: Sequence[bool]) -> dict[str, list[int]]:
        """Tokens of each text, many at a time; marked ones begin with a token of their own.

        The tokenizer works on a batch in parallel. What it keeps of a text beside its tokens is
        large, so a batch is small.
        """
        usual = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        found: dict[str, list[int]] = {}
        bare = partial(self._in_batches, settings={"add_special_tokens": False})
        for chosen, whole in ((False, partial(self._in_batches, settings=usual)), (True, bare)):
            group = [text for text, mark in zip(texts, marked, strict=True) if mark is chosen]
            found.update(
                zip(group, encode_sharing(self.tokenizer, group, whole, bare), strict=True)
            )
        return found

    def _in_batches(self, texts: Sequence[str], settings: dict[str, Any]) -> list[list[int]]:
        found: list[list[int]] = []
        for first in range(0, len(texts), TOKENISED_AT_ONCE):
            part = list(texts[first : first + TOKENISED_AT_ONCE])
            with _parallel_tokenizer():
                found += self.tokenizer(part, return_attention_mask=False, **settings)["input_ids"]
        return found

    def _count_cuts(self, requests: Sequence[Encoded]) -> None:
        less = " less its virtual tokens" if self._virtual_tokens else ""
        for _, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise UserError(
                    f"a continuation of {len(continuation)} tokens",
                    expected=f"at most {self.max_length}, the model's context{less}",
                    hint="leave the task out, or take a model with a longer context",
                )
            surplus = len(context) + len(continuation) - self.max_length - 1
            if surplus > 0:
                self.cut_requests += 1
                self.cut_tokens += surplus


class FastLM(PlainLM):
    """The same answers with less work.

    Requests with a common prefix share its computation, the vocabulary projection is computed
    where a log-probability is asked for, batches are filled by tokens, and identical requests
    are computed once. See :mod:`harness.score.prefixes`.
    """

    def __init__(self, model: Any, tokenizer: Any, likelihood: Likelihood) -> None:
        """Take the model and what answers queries about it."""
        super().__init__(model, tokenizer)
        self._likelihood = likelihood
        self._encodings: dict[str, list[int]] | None = None
        self._prompts: dict[str, list[int]] | None = None

    @property
    def details(self) -> dict[str, JsonValue]:
        """See :attr:`harness.score.likelihood.Likelihood.details`."""
        return self._likelihood.details

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-likelihood and greedy flag of each continuation; all texts are tokenised at once."""
        self._encodings = self._encode_all(_texts(requests))
        try:
            found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm)
        finally:
            self._encodings = None
        return found

    def _encode_all(self, texts: list[str]) -> dict[str, list[int]]:
        """Tokens of each text as lm-eval's ``tok_encode`` has them."""
        start = self.tokenizer.decode(self.prefix_token_id)
        return self._tokenised(texts, [has_bos_prefix(text, start) for text in texts])

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of each whole text; the windows of all texts are batched together."""
        kept, self.batch_size_per_gpu = self.batch_size_per_gpu, 1 << 30
        texts = dict.fromkeys(request.args[0] for request in requests)
        self._encodings = self._encode_all(list(texts))
        try:
            found: list[float] = super().loglikelihood_rolling(requests, disable_tqdm)
        finally:
            self.batch_size_per_gpu, self._encodings = kept, None
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations of each prompt; equal greedy requests are answered once."""
        self._prompts = {}
        try:
            return self._continued(requests, disable_tqdm)
        finally:
            self._prompts = None

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of prompts, remembered while one set of requests is answered."""
        if self._prompts is None:
            return super().prompts(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._prompts]
        self._prompts.update(zip(new, super().prompts(new), strict=True))
        return [self._prompts[text] for text in texts]

    def _continued(self, requests: list[Any], disable_tqdm: bool) -> list[str]:
        places: dict[str, int] = {}
        distinct: list[Any] = []
        owners: list[int] = []
        for request in requests:
            context, settings = request.args
            key = repr((context, settings))
            if settings.get("do_sample"):
                key = f"{key} {len(owners)}"
            if key not in places:
                places[key] = len(distinct)
                distinct.append(request)
            owners.append(places[key])
        self._count_cut_prompts(requests)
        longest = max(map(len, self.prompts([request.args[0] for request in distinct])))
        size = max(1, min(GENERATED_AT_ONCE, self._likelihood.batch_tokens // longest))
        # padding would lie between a soft prompt and the text, and some adapters look at all rows
        if self._virtual_tokens or sees_all(self.model) is not None:
            size = 1
        found = self._answered(distinct, size, disable_tqdm)
        return [found[owner] for owner in owners]

    def _answered(self, requests: list[Any], size: int, disable_tqdm: bool) -> list[str]:
        """Continuations of distinct prompts; where lm-eval answers them, ``size`` at a time."""
        batched = BatchedAnswers(self, self._likelihood)
        found = batched.answers([request.args for request in requests])
        self.answer_details = batched.details
        if found is not None:
            return found
        kept, self.batch_size_per_gpu = self.batch_size_per_gpu, size
        try:
            left: list[str] = HFLM.generate_until(self, requests, disable_tqdm)
        finally:
            self.batch_size_per_gpu = kept
        return left

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """Tokens of a text, remembered while one set of requests is worked on."""
        memory = self._encodings
        plain = add_special_tokens is None and not left_truncate_len and not kwargs
        if memory is None or not plain:
            tokens: list[int] = super().tok_encode(
                string, add_special_tokens, left_truncate_len, **kwargs
            )
            return tokens
        if string not in memory:
            memory[string] = super().tok_encode(string)
        return memory[string]

    def _loglikelihood_tokens(
        self,
        requests: list[Encoded],
        disable_tqdm: bool = False,  # noqa: ARG002 - lm-eval's signature
        override_bs: int | None = None,  # noqa: ARG002
    ) -> list[tuple[float, bool]]:
        self._count_cuts(requests)
        queries = []
        for _, context, continuation in requests:
            tokens = np.array((context + continuation)[-(self.max_length + 1) :], np.int64)
            queries.append(Query(tokens, np.arange(len(tokens) - len(continuation), len(tokens))))
        return [
            (float(answer.log_probs.sum()), bool(answer.greedy.all()))
            for answer in self._likelihood.answer(queries)
        ]


@contextmanager
def _tied_as_it_is(model: Any) -> Iterator[None]:
    """Keep lm-eval from tying weights: a live model is tied, and PEFT's layers cannot be again."""
    model.tie_weights = lambda *_, **__: None
    try:
        yield
    finally:
        del model.tie_weights


@contextmanager
def _parallel_tokenizer() -> Iterator[None]:
    """Let the tokenizer use threads; elsewhere it may not, since a fork would lose them."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _texts(requests: Sequence[Any]) -> list[str]:
    """The distinct texts that lm-eval tokenises for log-likelihood requests.

    Of a context and its continuation it tokenises both together, and the context without the
    spaces at its end.
    """
    found: dict[str, None] = {}
    for context, continuation in (request.args for request in requests):
        if context:
            found[context + continuation] = None
            found[context.rstrip()] = None
    return list(found)
