"""Evaluation: runs lm-eval tasks on a live model and turns its results into scores with items."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from harness.errors import DivergedError, UserError
from harness.records.record import Score
from harness.score.bundled import write_documents
from harness.score.catalogue import Loaded, asked_tasks, document_kinds, load_task
from harness.score.progress import heard
from harness.score.samples import Evaluated, Sample, write_scores
from harness.score.subject import Scores, Subject, Taking
from harness.spec.suite import Task

if TYPE_CHECKING:
    from harness.score.likelihood import Likelihood


def lm_eval_tasks(taking: Taking) -> Scores:
    """Scores of the suite's lm-eval tasks, and of the preference task where it is asked for."""
    subject, spec = taking.subject, taking.subject.plan.score
    lm = language_model(subject, taking.likelihood)
    documents = taking.place.folder / "documents"
    details: dict[str, JsonValue] = {"engine": spec.engine, "data_folder": spec.data_folder}
    scores: list[Score] = []
    for task in asked_tasks(spec):
        taking.progress.note(f"scoring {task.name}")
        for kind in document_kinds(task, spec.include_path):
            write_documents(kind, subject.corpus, subject.renderer, documents)
        with (
            load_task(task, subject.data_folder, documents, spec.include_path) as loaded,
            heard(subject.model, taking.progress, f"scoring {task.name}"),
        ):
            scores += write_scores(evaluate(task, loaded, lm, details), taking.place)
    return Scores(tuple(scores))


def language_model(subject: Subject, likelihood: Likelihood) -> Any:
    """The lm-eval language model that the suite asks for, over the subject's live model."""
    from harness.score.divided_engine import DividedLM
    from harness.score.engine import FastLM, PlainLM

    tokenizer = copy.deepcopy(subject.tokenizer)
    tokenizer.chat_template = subject.renderer.chat_template
    if subject.plan.score.engine == "hf":
        return PlainLM(subject.model, tokenizer)
    if subject.ranks.count > 1 and not subject.plan.sharded:
        return DividedLM(subject.model, tokenizer, likelihood, subject.ranks)
    return FastLM(subject.model, tokenizer, likelihood)


def evaluate(task: Task, loaded: Loaded, lm: Any, details: dict[str, JsonValue]) -> Evaluated:
    """Run one task or group through ``lm_eval.simple_evaluate``.

    Raises:
        DivergedError: a log-likelihood is not a finite number.
        UserError: the split is empty.
    """
    import lm_eval

    cuts = lm.cut_requests, lm.cut_tokens
    with _quiet():
        try:
            results = lm_eval.simple_evaluate(
                model=lm,
                tasks=loaded.asked,
                task_manager=loaded.manager,
                num_fewshot=task.num_fewshot,
                limit=task.limit,
                apply_chat_template=task.apply_chat_template,
                fewshot_as_multiturn=task.apply_chat_template,
                bootstrap_iters=0,
                log_samples=True,
            )
        except ValueError as error:
            if "did not find any docs" in str(error):
                raise UserError(f"the split of task {task.name} is empty") from error
            raise
    _check_finite(results["samples"])
    details = {
        **details,
        **(lm.details if "loglikelihood" in _asked_types(loaded) else {}),
        **(lm.answer_details if "generate_until" in _asked_types(loaded) else {}),
        "lm_eval": version("lm-eval"),
        "limit": task.limit,
        "chat_template": task.apply_chat_template,
        "cut_requests": lm.cut_requests - cuts[0],
        "cut_tokens": lm.cut_tokens - cuts[1],
    }
    return Evaluated(task, loaded, results, details)


def _asked_types(loaded: Loaded) -> set[str]:
    """Whether a task asks for answers, for log-likelihoods or for both."""
    kinds = {leaf.OUTPUT_TYPE for leaf in loaded.tasks.values()}
    answers = {"generate_until"} & kinds
    return answers | ({"loglikelihood"} if kinds - answers else set())


def _check_finite(samples: dict[str, list[Sample]]) -> None:
    for name, rows in samples.items():
        for row in rows:
            for response, *_ in row["resps"]:
                value = response[0] if isinstance(response, tuple) else response
                if isinstance(value, float) and not math.isfinite(value):
                    raise DivergedError(
                        f"a log-likelihood of task {name} is {value}", where=f"doc {row['doc_id']}"
                    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep only lm-eval's errors of its log, and leave its look at the machine out.

    It logs every task's defaults as warnings. After every call it asks pip, nvidia-smi and others
    about the machine, in processes of their own: half a second and more a task, for what the run's
    own manifest says once.
    """
    from lm_eval import evaluator

    logger = logging.getLogger("lm_eval")
    kept, look = logger.level, evaluator.add_env_info
    logger.setLevel(logging.ERROR)
    evaluator.add_env_info = lambda results: None  # noqa: ARG005 - lm-eval passes its results
    try:
        yield
    finally:
        logger.setLevel(kept)
        evaluator.add_env_info = look
