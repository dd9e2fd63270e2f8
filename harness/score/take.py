"""take_scores: every score a suite asks for, of one model in one precision."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.errors import UnknownName
from harness.records.events import Progress
from harness.score.contexts import TIMES, context_task, longer_contexts
from harness.score.divided import make_likelihood
from harness.score.evaluation import lm_eval_tasks
from harness.score.forgetting import BITS_PER_BYTE as FORGOTTEN_BITS
from harness.score.forgetting import unrelated_text
from harness.score.generations import CHRF, EMPTY, NEVER_ENDING, ROUGE_L, answered_prompts
from harness.score.items import Place
from harness.score.perplexity import BITS_PER_BYTE as HELD_OUT_BITS
from harness.score.perplexity import PERPLEXITY, held_out
from harness.score.subject import Scores, Subject, TakeScore, Taking
from harness.score.undisturbed import undisturbed
from harness.spec.suite import ScoreSpec

SCORES: dict[str, TakeScore] = {
    "held_out": held_out,
    "tasks": lm_eval_tasks,
    "forgetting": unrelated_text,
    "contexts": longer_contexts,
    "generations": answered_prompts,
}
# What each measures, by task and metric; an lm-eval task says for itself.
OWN_METRICS: dict[str, tuple[tuple[str, str], ...]] = {
    "held_out": tuple((one.task, one.name) for one in (PERPLEXITY, HELD_OUT_BITS)),
    "forgetting": ((FORGOTTEN_BITS.task, FORGOTTEN_BITS.name),),
    "contexts": tuple((context_task(times), PERPLEXITY.name) for times in TIMES),
    "generations": tuple((one.task, one.name) for one in (CHRF, ROUGE_L, EMPTY, NEVER_ENDING)),
}
# What a score imports only when it is taken, by its name.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "tasks": ("harness.score.divided_engine", "lm_eval.evaluator", "lm_eval.tasks"),
    "forgetting": ("datasets",),
    "generations": ("harness.score.answers", "rouge_score.rouge_scorer", "sacrebleu"),
}


def take_scores(
    subject: Subject, stage: Literal["before", "after"], folder: Path, progress: Progress
) -> Scores:
    """Take every score of the plan and write per-item values below ``folder/items``.

    Training mode, cache setting and random state of the model and process are left as found.

    Raises:
        DivergedError: a log-likelihood is not a finite number.
        UserError: a task, data set or split that is not there.
    """
    spec = subject.plan.score
    place = Place(folder, stage, subject.precision)
    with undisturbed(subject.model):
        likelihood = make_likelihood(subject, progress)
        taking = Taking(subject, likelihood, place, progress)
        found = [SCORES[name](taking) for name in wanted(spec)]
    return Scores(
        tuple(score for part in found for score in part.scores),
        tuple(answer for part in found for answer in part.generations),
    )


def libraries(spec: ScoreSpec) -> list[str]:
    """Modules that the scores of a suite import when they are taken.

    A run loads them before it scores or trains: left to the first score, they would stay in memory
    through the training of a run that scores its base, and not of one that reuses those scores.

    Raises:
        UnknownName: as `wanted`.
    """
    return [module for name in wanted(spec) for module in LIBRARIES.get(name, ())]


def wanted(spec: ScoreSpec) -> list[str]:
    """Names of the scores that a suite asks for, in the order they are taken.

    Raises:
        UnknownName: ``score.also`` names one that there is not.
    """
    own = {
        "tasks": bool(spec.tasks or spec.preference),
        "forgetting": spec.forgetting,
        "generations": spec.generations > 0,
    }
    for name in spec.also:
        if name not in SCORES:
            raise UnknownName("score", name, list(SCORES), where="score.also")
    return [name for name in SCORES if name == "held_out" or own.get(name) or name in spec.also]
