"""Judge: claims against the runs of every ground, with errors shared between all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.records.store import StoredRun
from harness.report.claims.decide import LEANINGS, Leaning, Outcome, corrected
from harness.report.claims.ground import Ground, main_ground, make_grounds
from harness.report.claims.measures import measure
from harness.spec.claim import Claim

NOT_HERE = "a model or a setting in which it happens; it does not here"


@dataclass(frozen=True)
class Finding:
    """One comparison of a claim on one ground, with its outcome after correction."""

    measured: Leaning
    outcome: Outcome

    @property
    def p_value(self) -> float:
        """Of its verdict, or of the nearer one, uncorrected: 0 without noise, 1 without verdict."""
        errors = self.measured.errors
        if errors is None:
            return 0.0 if self.outcome in LEANINGS else 1.0
        known = {"reproduced": errors.fits, "contradicted": errors.refutes}
        return known.get(self.outcome, min(errors.fits, errors.refutes))


@dataclass(frozen=True)
class Judgement:
    """What one ground says of a claim. ``ground`` is None where no run says anything."""

    claim: Claim
    ground: Ground | None
    outcome: Outcome
    findings: tuple[Finding, ...]

    @property
    def elsewhere(self) -> bool:
        """Whether it was claimed for models of quite another size."""
        if self.ground is None or self.ground.billions is None or not self.claim.claimed.billions:
            return False
        own = self.ground.billions
        return all(not size / 2 <= own <= size * 2 for size in self.claim.claimed.billions)


def judge(
    claims: Sequence[Claim], runs: Iterable[StoredRun], *, looked: bool = False
) -> list[Judgement]:
    """Every claim on every ground that says something of it, in the order of the claims.

    All comparisons are corrected together, so that the chance of any wrong verdict in the table is
    at most 5 %. With ``looked`` the seeds were looked at one after the other also where no rates
    were tuned.
    """
    grounds = [replace(ground, looked=looked) for ground in make_grounds(runs)]
    asked = [(claim, ground) for claim in claims for ground in grounds]
    measured = [[measure(check, ground) for check in claim.checks] for claim, ground in asked]
    if sum(one.errors is not None for found in measured for one in found) == 1:
        # Shown with the interval of its verdict, since none is read beside it.
        lone = [(claim, replace(ground, alone=True)) for claim, ground in asked]
        measured = [[measure(check, ground) for check in claim.checks] for claim, ground in lone]
    outcomes = iter(corrected([one for found in measured for one in found]))
    judged: dict[str, list[Judgement]] = {}
    for (claim, ground), found in zip(asked, measured, strict=True):
        findings = tuple(_finding(claim, one, next(outcomes)) for one in found)
        judged.setdefault(claim.name, []).append(
            Judgement(claim, ground, _together(findings), findings)
        )
    return [told for claim in claims for told in _telling(claim, judged.get(claim.name, []))]


def main_judged(judged: Iterable[Judgement]) -> Ground | None:
    """The main ground of a page: of the grounds on which claims were judged, the largest."""
    return main_ground(one.ground for one in judged if one.ground is not None)


def _finding(claim: Claim, measured: Leaning, outcome: Outcome) -> Finding:
    """An outcome; what can happen is not refuted by runs in which it does not.

    Nor would more of them decide it, unless they lean to it.
    """
    leans = measured.errors is not None and measured.outcome != "reproduced"
    if claim.can and (outcome == "contradicted" or (outcome == "undecided" and leans)):
        return Finding(replace(measured, decides=NOT_HERE), "undecided")
    return Finding(measured, outcome)


def _telling(claim: Claim, found: Sequence[Judgement]) -> list[Judgement]:
    """The grounds that say something of a claim, or why none does.

    Where one ground judges every part, another that lacks some of them adds nothing.
    """
    telling = [one for one in found if one.outcome != "out of reach"]
    whole = [one for one in telling if all(f.outcome != "out of reach" for f in one.findings)]
    if whole:
        telling = [one for one in telling if one in whole or one.outcome == "contradicted"]
    if telling:
        return telling
    if found:
        return [Judgement(claim, None, "out of reach", found[0].findings)]
    return [Judgement(claim, None, "out of reach", ())]


def _together(findings: Sequence[Finding]) -> Outcome:
    """The outcome of a claim: one refuted part refutes it, all must hold for it to hold."""
    outcomes = {finding.outcome for finding in findings}
    if "contradicted" in outcomes:
        return "contradicted"
    if outcomes == {"out of reach"}:
        return "out of reach"
    return "reproduced" if outcomes == {"reproduced"} else "undecided"
