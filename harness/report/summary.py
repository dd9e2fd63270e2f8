"""Summary: the recommendation in words, and every caveat that a reader must know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness import numbers
from harness.report.blocks import Block, Caveat, Details, Section, code, prose, strong
from harness.report.cells import ending, show_limit
from harness.report.decision import price, what_would_change
from harness.report.evidence import Evidence
from harness.report.gains import gains
from harness.report.machines import apart_said
from harness.report.origins import assumed
from harness.report.provenance import differing_conditions
from harness.report.ranking import packed_base
from harness.report.recommend import Recommendation, recommend
from harness.report.rows import Row
from harness.report.statistics.effects import FEWEST_CLUSTERS
from harness.spec.methods import needs_of
from harness.spec.request import suite_changes

FEW_TREES = 20
NAMED = 4


def summary_section(evidence: Evidence) -> Section | None:
    """What to use, why, how sure; then the caveats."""
    found = recommend(evidence)
    if found is None:
        return Section("summary", "Decision", tuple(_nothing_scored(evidence)))
    asked = evidence.request.budget_memory_bytes, evidence.request.max_loss
    if len(evidence.rows) == 1 and found.row is not None and asked == (None, None):
        blocks = _single(evidence, found.row)
    else:
        blocks = _recommended(evidence, found)
    blocks += [Caveat(text) for text in caveats(evidence)]
    blocks.append(_settings(evidence))
    return Section("summary", "Decision", tuple(blocks))


def _nothing_scored(evidence: Evidence) -> Iterator[Block]:
    """How runs ended of which none has a score, or how to begin where there is none."""
    suite = evidence.request.suite.partition("+")[0]
    if not evidence.rows:
        yield prose(f"No run has been scored yet: suite {suite} has no runs.")
        yield prose("The first is made by ", code("python -m harness run --variant qlora_nf4"), ".")
        yield from (Caveat(text) for text in _broken(evidence))
        return
    failed = [(row, record) for row in evidence.rows for record in row.failures]
    ended = f"none of {_counted(len(failed), 'run')} ended well" if failed else "no run has a score"
    where = " Their last words stand under “Runs that did not end well”." if failed else ""
    yield prose(f"No run has been scored yet, so there is nothing to recommend: {ended}.{where}")
    for row, record in failed:
        told = f", seed {record.plan.seed}: {ending(record)}"
        yield prose(code(row.label), told, bullet=True)
    yield from (Caveat(text) for text in _broken(evidence))
    yield _settings(evidence)


def _single(evidence: Evidence, row: Row) -> list[Block]:
    """What training changed, which is what the runs of one variant have shown."""
    models = row.plan.model.name
    asked = f"What does training {row.label} change in {models}?"
    if not row.plan.trains:
        asked = f"How good is {row.label}, untrained ({models})?"
    told: list[Block] = [prose(asked)]
    for place, gain in enumerate(gains(row)):
        told.append(prose(gain if place else strong(gain)))
    return told + price(evidence, row)


def _recommended(evidence: Evidence, found: Recommendation) -> list[Block]:
    blocks: list[Block] = [_question(evidence)]
    if found.row is None:
        blocks.append(prose(strong("Nothing fits. "), " ".join(found.reasons)))
    else:
        blocks.append(
            prose(strong(lead(evidence)), code(found.row.label), ". ", " ".join(found.reasons))
        )
        blocks += price(evidence, found.row)
    if found.sureness:
        blocks.append(prose(strong("How sure:")))
        blocks += [prose(text, bullet=True) for text in found.sureness]
    changes = what_would_change(evidence, found)
    if changes:
        blocks.append(prose(strong("What would change this choice:")))
        blocks += [prose(text, bullet=True) for text in changes]
    return blocks


def lead(evidence: Evidence) -> str:
    """What a recommendation begins with."""
    if meaningless(evidence):
        return "Least bad choice: "
    trained = any(row.plan.trains and row.finished for row in evidence.rows)
    return "Recommended: " if trained else "Nothing was trained. The best as it is: "


def _changes(evidence: Evidence) -> list[str]:
    """What was set otherwise than in the suite's file, as typed."""
    request = next((row.plan.request for row in evidence.rows if row.plan.request), None)
    if request is None:
        return evidence.request.suite.split("+")[1:]
    return suite_changes(request)


def _question(evidence: Evidence) -> Block:
    """What the report was asked, with the limits that the reader set."""
    request = evidence.request
    models = ", ".join(sorted({row.plan.model.name for row in evidence.rows}))
    text = f"Which of {_counted(len(evidence.rows), 'variant')} to use for {models}"
    limits = []
    if request.budget_memory_bytes is not None:
        limits.append(f"within {numbers.size(request.budget_memory_bytes)} of memory")
    if request.max_loss is not None:
        lost = numbers.percent(request.max_loss)
        limits.append(f"losing at most {lost} against {evidence.reference}")
    if limits:
        text += " " + " and ".join(limits)
    text += "?"
    if evidence.main is not None:
        margin = show_limit(evidence.main, evidence.main.scale.margin)
        text += f" Ranked by {evidence.main.key.title}; differences up to {margin} do not matter."
    return prose(text)


def _settings(evidence: Evidence) -> Details:
    """What was run: how many runs, on what, with which budget, and what was set."""
    finished = sum(len(row.finished) for row in evidence.rows)
    failed = sum(len(row.failures) for row in evidence.rows)
    parts = [_counted(len(evidence.rows), "variant"), _counted(finished, "finished run")]
    if failed:
        parts.append(f"{failed} failed")
    models = sorted({row.plan.model.name for row in evidence.rows})
    devices = sorted({row.plan.device.name for row in evidence.rows})
    runs = ", ".join(parts) + f"; model {', '.join(models)} on {', '.join(devices)}. "
    blocks: list[Block] = [prose((runs + _budget(evidence)).strip())]
    changes = _changes(evidence)
    if changes:
        blocks.append(prose("Changed from the suite's file:"))
        blocks += [prose(code(change), bullet=True) for change in changes]
    return Details("Settings of these runs", tuple(blocks))


def _budget(evidence: Evidence) -> str:
    """Which of steps and tokens was the same for all trained rows, and how the other differs."""
    trained = [row for row in evidence.rows if row.plan.trains and row.finished]
    seen = [
        record.training.tokens.non_padding
        for row in trained
        for record in row.finished
        if record.training
    ]
    budgets = {(row.plan.budget.steps, row.plan.budget.tokens) for row in trained}
    if not seen or len(budgets) > 1:
        return ""
    steps, tokens = budgets.pop()
    low, high = numbers.count(min(seen)), numbers.count(max(seen))
    between = f"{low} tokens"
    if low != high:
        between = f"{low} to {high} tokens{_by_what(trained)}"
    if steps is not None:
        return f"Every variant was trained for {_counted(steps, 'step')}, which was {between}. "
    return f"Every variant was trained on {numbers.count(tokens)} tokens ({between} seen). "


def _by_what(rows: Sequence[Row]) -> str:
    """Says so where all rows saw the same tokens at the same seed, so that seeds alone differ."""
    seen: dict[int, set[int]] = {}
    for record in (record for row in rows for record in row.finished if record.training):
        assert record.training is not None  # noqa: S101 - the line above looked
        seen.setdefault(record.plan.seed, set()).add(record.training.tokens.non_padding)
    alike = all(len(counts) == 1 for counts in seen.values())
    return " by seed, the same for all variants" if alike and len(seen) > 1 else ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def meaningless(evidence: Evidence) -> bool:
    """Whether any row started from random weights."""
    return any(row.plan.model.is_random for row in evidence.rows)


def caveats(evidence: Evidence) -> Iterator[str]:
    """Everything that limits what the numbers say, one sentence each."""
    main = evidence.main
    if evidence.asked is not None and main is not None:
        yield (
            f"The suite's primary score, {evidence.asked}, was not taken by any run; "
            f"{main.key.title} ranks instead."
        )
    if meaningless(evidence):
        yield "Random weights: quality scores are meaningless; only costs can be compared."
    yield from _weights_caveats(evidence)
    yield from _corpus_caveats(evidence)
    yield from _seed_caveats(evidence)
    yield from _rate_caveats(evidence)
    yield from _foresight_caveats(evidence)
    packed = packed_base(row.plan for row in evidence.rows)
    if packed:
        yield packed
    if main is not None and 0 < main.clusters < FEW_TREES:
        yield (
            f"Only {main.clusters} groups of held-out items: "
            + (
                "intervals are wide and approximate."
                if main.clusters >= FEWEST_CLUSTERS
                else f"too few for an interval or a verdict, which need {FEWEST_CLUSTERS}."
            )
        )
    if main is not None and main.excluded:
        rows = "; ".join(f"{label}: {reason}" for label, reason in sorted(main.excluded.items()))
        yield f"Not compared on {main.key.title}: {rows}."
    changed = sorted({item.key for row in evidence.rows for item in row.plan.substitutions})
    if changed:
        yield f"Settings were replaced ({', '.join(changed)}); see what differs."
    yield from _conditions_caveats(evidence)
    yield from _broken(evidence)


def _conditions_caveats(evidence: Evidence) -> Iterator[str]:
    """What costs owe to where and beside what the runs were made."""
    if differing := differing_conditions(evidence):
        yield (
            "Not all runs were made under the same conditions, which alone may change costs and, "
            f"by rounding, scores. They differ in {numbers.some_of(differing, NAMED)}; the table "
            "under “What differs” names the runs."
        )
    if apart := apart_said(evidence.rows):
        yield apart
    if any(record.shared for row in evidence.rows for record in row.records):
        yield (
            "Some runs shared their device with others: their times are longer than alone, and "
            "their energy was not measured."
        )
    if any(record.together > 1 for row in evidence.rows for record in row.records):
        yield (
            "Some runs trained together on one base. What all of them took is recorded in equal "
            "shares, which do not say what one takes alone: times, energy and memory here are "
            "those of the other runs."
        )


def _broken(evidence: Evidence) -> Iterator[str]:
    if evidence.broken:
        yield f"{len(evidence.broken)} records could not be read and were left out; named below."


def _weights_caveats(evidence: Evidence) -> Iterator[str]:
    guessed = assumed([row.plan for row in evidence.rows])
    if guessed:
        yield (
            f"Not all records say which weights of {_named(guessed)} they started from: where "
            "one does not, they are taken to be those of the others."
        )


def _corpus_caveats(evidence: Evidence) -> Iterator[str]:
    corpora = {
        (record.corpus.name, record.corpus.is_sample)
        for row in evidence.rows
        for record in row.records
        if record.corpus
    }
    samples = sorted(name for name, is_sample in corpora if is_sample)
    if samples:
        yield (
            "Trained and scored on the bundled sample, written for this project; it is not OASST "
            "itself, and far too small to say what variant suits your data."
        )
    if len(corpora) > 1:
        yield f"Rows use {len(corpora)} different corpora; only equal ones are compared."


def _seed_caveats(evidence: Evidence) -> Iterator[str]:
    trained = [row for row in evidence.rows if row.finished and row.plan.trains]
    single = [row.label for row in trained if len(row.seeds) == 1]
    if trained and len(single) == len(trained):
        yield (
            "One seed only: differences are those of one training each, and no verdict about a "
            "variant is given. Repeat with --seeds 0..2."
        )
    elif single:
        yield f"One seed only, so no verdict is given: {_named(single)}."
    two = [row.label for row in trained if len(row.seeds) == 2 and _has_interval(evidence, row)]
    if two:
        yield (
            "Two seeds give a poor estimate of seed noise, so these intervals are very wide: "
            f"{_named(two)}."
        )


def _has_interval(evidence: Evidence, row: Row) -> bool:
    """Whether any is shown for a row: of its own value, or of its difference."""
    value = None if evidence.main is None else evidence.main.values.get(row.label)
    return value is not None and value.low is not None


def _foresight_caveats(evidence: Evidence) -> Iterator[str]:
    """A model that sees what it is asked to predict has a likelihood that is no prediction."""
    seeing = [row.label for row in evidence.rows if needs_of(row.plan.adapter).sees_all]
    if seeing:
        yield (
            f"What these variants add to a token depends on later tokens too: {_named(seeing)}. "
            "Their perplexities and log-likelihoods are no predictions; compare their answers."
        )


def _rate_caveats(evidence: Evidence) -> Iterator[str]:
    """A ranking at rates that nobody has tuned may be one of rates, not of variants."""
    trained = [row for row in evidence.rows if row.finished and row.plan.trains]
    if len(trained) < 2:
        return
    rates = sorted({row.plan.training.learning_rate for row in trained})
    what = f"one learning rate ({rates[0]:g})" if len(rates) == 1 else "its file's learning rate"
    yield (
        f"Every variant was trained at {what}. At its own best rate a variant may gain more than "
        "another one: harness study tunes each alike."
    )


def _named(labels: Sequence[str]) -> str:
    """A few names, or how many there are."""
    return ", ".join(labels) if len(labels) <= 4 else f"{len(labels)} rows, see the ranking"
