"""Validation: the loss on the validation split of a model that is being trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import TooFew, UserError
from harness.parallel.ranks import ALONE, Ranks
from harness.records.events import SILENCE
from harness.score.perplexity import negative_log_likelihoods, sequences_of, window_of
from harness.score.subject import Subject

if TYPE_CHECKING:
    from harness.corpus.corpus import Corpus
    from harness.corpus.render import TokenSequence
    from harness.spec.plan import Plan
    from harness.spec.suite import ScoreSpec


def check_validation(plan: Plan, corpus: Corpus) -> None:
    """Refuse a corpus without the conversations that training would be validated on.

    Raises:
        TooFew: there are none.
    """
    if plan.validation.every and plan.trains and not corpus.validation:
        raise TooFew(
            "no validation conversations, and validation.every asks for their loss",
            where=corpus.result.name,
            expected="one or more",
            hint="--set corpus.validation_fraction=0.2, or a larger corpus",
        )


@dataclass(frozen=True)
class ValidationLoss:
    """The mean loss of a live model over the same conversations every time it is called.

    It is what scoring the validation split gives: perplexity there is exp of it. Nothing is kept
    from one call to the next, so that a training that goes on from a checkpoint gets the same.
    Several ``ranks`` take it together and get the same number.
    """

    model: Any
    sequences: Sequence[TokenSequence]
    spec: ScoreSpec
    ranks: Ranks = ALONE

    @classmethod
    def of(cls, subject: Subject) -> ValidationLoss:
        """Take the validation conversations of a subject, and nothing else of its corpus."""
        sequences = sequences_of(subject, "validation")
        return cls(subject.model, sequences, subject.plan.score, subject.ranks)

    def take(self) -> float:
        """Nats per assistant token.

        Training modes, cache setting and random state of model and process are left as found.

        Raises:
            DivergedError: a log-likelihood is not a finite number.
            UserError: no conversation has an assistant token.
        """
        from harness.score.divided import likelihood_of
        from harness.score.undisturbed import undisturbed

        with undisturbed(self.model):
            likelihood = likelihood_of(self.model, self.spec.batch_tokens, SILENCE, self.ranks)
            pairs = [(one.input_ids, one.loss_mask) for one in self.sequences]
            losses = negative_log_likelihoods(likelihood, pairs, *window_of(likelihood, self.spec))
        count = sum(len(loss) for loss in losses)
        if not count:
            raise UserError(
                f"none of {len(losses)} validation conversations has a token to score",
                expected="assistant tokens among the first held_out_tokens",
                hint="raise score.held_out_tokens",
            )
        return float(sum(loss.sum() for loss in losses) / count)
