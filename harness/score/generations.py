"""Generations: a fixed set of held-out prompts answered by the model, set against human replies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.corpus.conversation import Conversation, Message
from harness.corpus.corpus import build_corpus
from harness.corpus.render import Renderer
from harness.records.events import Progress
from harness.records.record import Generation, Score
from harness.score.items import Items, Metric, Place, Stage
from harness.score.subject import Scores, Taking
from harness.spec.suite import CorpusSpec

if TYPE_CHECKING:
    from harness.score.likelihood import Likelihood

TASK = "generations"
CHRF = Metric(TASK, "chrf", "points", "higher")
ROUGE_L = Metric(TASK, "rouge_l", "fraction", "higher")
EMPTY = Metric(TASK, "empty", "fraction", "lower")
NEVER_ENDING = Metric(TASK, "never_ending", "fraction", "lower")


@dataclass(frozen=True)
class Prompt:
    """A held-out message with the reply a person wrote."""

    conversation: Conversation
    messages: tuple[Message, ...]
    reference: str


def answered_prompts(taking: Taking) -> Scores:
    """Answers to prompts of the held-out part of the corpus, or of the bundled sample."""
    from harness.score.settings import own_settings

    subject, spec = taking.subject, taking.subject.plan.score
    taking.progress.note("answering prompts")
    own = spec.prompts == "held_out" or subject.plan.corpus.source == "sample"
    corpus = subject.corpus if own else build_corpus(CorpusSpec(source="sample"))
    prompts = choose_prompts(corpus.held_out, spec.generations)
    limit = spec.max_new_tokens
    answers = generate(subject.model, subject.renderer, prompts, limit, taking.likelihood)
    settings = own_settings(subject.model)
    how = {
        "prompts": spec.prompts,
        "max_new_tokens": limit,
        "decoding": f"greedy, with the model's own {settings}" if settings else "greedy",
    }
    scores, generations = score_generations(prompts, answers, subject.tokenizer, taking.place, how)
    return Scores(tuple(scores), tuple(generations))


def choose_prompts(conversations: Sequence[Conversation], count: int) -> list[Prompt]:
    """The first message of the first ``count`` trees, in the order of their ids."""
    first: dict[str, Conversation] = {}
    for conversation in sorted(conversations, key=lambda c: (c.tree_id, c.id)):
        if conversation.messages[len(conversation.opening)].trained:  # a reply worth comparing with
            first.setdefault(conversation.tree_id, conversation)
    chosen = list(first.values())[:count]
    return [Prompt(c, c.opening, c.messages[len(c.opening)].text) for c in chosen]


def generate(
    model: Any,
    renderer: Renderer,
    prompts: Sequence[Prompt],
    limit: int,
    likelihood: Likelihood,
) -> list[tuple[list[int], bool]]:
    """Greedy answers of at most ``limit`` tokens: (token ids without the end, whether it ended).

    ``likelihood`` runs the model; what it cannot run is left to transformers.
    """
    from harness.score.answers import Answers, Ask
    from harness.score.batched_answers import why_not
    from harness.score.probe import sees_all, soft_prompt_tokens

    rows = [renderer.prompt_ids(prompt.messages) for prompt in prompts]
    end, tree = renderer.end_of_turn_id, likelihood.tree

    def over(tokens: list[int], _: int) -> int | None:
        return tokens.index(end) + 1 if end in tokens else None

    found: list[list[int]] | None = None
    if tree is not None and why_not(model, likelihood, max(map(len, rows)) + limit) is None:
        answers = Answers(tree, likelihood.pass_tokens, likelihood.progress)
        asks = [Ask(np.array(row, np.int64), limit, over) for row in rows]
        found = answers.answered(asks)
    if found is None:
        # Padding would lie between a soft prompt and the text, and some adapters look at all rows.
        alone = soft_prompt_tokens(model) or sees_all(model) is not None
        groups = [[row] for row in rows] if alone else [rows]
        found = []
        for group in groups:
            found += _generate(model, group, limit, renderer, likelihood.progress)
    return [_until_end(row, end) for row in found]


def _generate(
    model: Any,
    rows: Sequence[Sequence[int]],
    limit: int,
    renderer: Renderer,
    progress: Progress,
) -> list[list[int]]:
    """Answers by transformers' own loop, which takes every model; padded on the left."""
    import torch
    from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), renderer.pad_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = torch.tensor(row)
        mask[index, width - len(row) :] = 1

    class Teller(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
        """Reports each token; never stops."""

        told = 0.0

        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002
            if time.monotonic() - self.told > 0.5:
                self.told = time.monotonic()
                progress.advance(input_ids.shape[1] - width, limit)
            return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    settings = GenerationConfig(
        max_new_tokens=limit,
        do_sample=False,
        num_beams=1,
        eos_token_id=renderer.end_of_turn_id,
        pad_token_id=renderer.pad_id,
        use_cache=True,
    )
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=settings,
            stopping_criteria=StoppingCriteriaList([Teller()]),
        )
    found: list[list[int]] = out[:, width:].tolist()
    return found


def _until_end(tokens: list[int], end: int) -> tuple[list[int], bool]:
    if end in tokens:
        return tokens[: tokens.index(end)], True
    return tokens, False


def score_generations(
    prompts: Sequence[Prompt],
    answers: Sequence[tuple[list[int], bool]],
    tokenizer: Any,
    place: Place,
    how: Mapping[str, str | int],
) -> tuple[list[Score], list[Generation]]:
    """ChrF and ROUGE-L against the human reply, and how many answers are empty or never end.

    ``how`` says which prompts were answered and how: ``prompts``, ``max_new_tokens``, ``decoding``.
    Both are means of sentence scores (Popović 2015, sacrebleu's chrF2; Lin 2004, F-measure), so
    that variants can be compared answer by answer.
    """
    texts = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens, _ in answers]
    generations = [
        _generation(prompt, text, answer, place.stage)
        for prompt, text, answer in zip(prompts, texts, answers, strict=True)
    ]
    values = {
        CHRF: [_chrf(g.answer, g.reference or "") for g in generations],
        ROUGE_L: [_rouge(g.answer, g.reference or "") for g in generations],
        EMPTY: [float(not g.answer) for g in generations],
        NEVER_ENDING: [float(not g.ended) for g in generations],
    }
    names = [prompt.conversation.id for prompt in prompts]
    clusters = [prompt.conversation.tree_id for prompt in prompts]
    shown = {
        "prompt": [g.prompt for g in generations],
        "target": [g.reference or "" for g in generations],
        "answer": texts,
    }
    scores = [
        place.write(
            metric,
            Items(names, clusters, np.array(found), np.ones(len(found)), shown),
            asked={key: how[key] for key in ("prompts", "max_new_tokens")},
            details={key: how[key] for key in ("max_new_tokens", "decoding")},
        )
        for metric, found in values.items()
    ]
    return scores, generations


def _generation(
    prompt: Prompt, text: str, answer: tuple[list[int], bool], stage: Stage
) -> Generation:
    return Generation(
        prompt=prompt.messages[-1].text,
        reference=prompt.reference,
        answer=text,
        stage=stage,
        tokens=len(answer[0]),
        ended=answer[1],
    )


def _chrf(answer: str, reference: str) -> float:
    from sacrebleu import sentence_chrf

    return float(sentence_chrf(answer, [reference]).score)


def _rouge(answer: str, reference: str) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure)
