"""Page: judged claims as a table that fits a screen, with the evidence for each below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness import numbers
from harness.report.blocks import (
    Block,
    Caveat,
    Cell,
    Column,
    Details,
    Figure,
    Section,
    Table,
    Tone,
    prose,
    strong,
)
from harness.report.claims.decide import ALPHA, LEANINGS, Outcome
from harness.report.claims.ground import Ground
from harness.report.claims.judge import Judgement, main_judged
from harness.report.claims.protocol import assumed_suites, how_apart
from harness.report.origins import assumed
from harness.report.ranking import packed_base
from harness.report.rows import Row
from harness.spec.claim import USUAL_MARGIN

TONES: dict[Outcome, Tone] = {
    "reproduced": "good",
    "contradicted": "bad",
    "undecided": "muted",
    "out of reach": "muted",
}
FEW_PARTS = 2  # of a claim: the one that decides needs no name
ORDER: tuple[Outcome, ...] = ("reproduced", "contradicted", "undecided", "out of reach")


@dataclass(frozen=True)
class ClaimsPage:
    """Judged claims in the form that :func:`harness.report.write.markdown_page` writes."""

    title: str
    sections: tuple[Section, ...]


def claims_page(
    judged: Sequence[Judgement], figures: Sequence[Figure] = (), about: Sequence[Section] = ()
) -> ClaimsPage:
    """The table of verdicts, what to do, figures of all variants, then what each rests on."""
    judged = by_verdict(judged)
    reached = [one for one in judged if one.ground is not None]
    blocks: list[Block] = [prose(summary(judged))]
    if reached:
        blocks.append(prose(f"Here: {ground_here(reached)}."))
        blocks.append(verdicts(reached))
    blocks += _out_of_reach(judged)
    blocks += notes(reached)
    sections = [Section("findings", "Findings", tuple(blocks))]
    advised = tuple(advice(reached))
    if advised:
        sections.append(Section("advice", "What to do", advised))
    if figures:
        sections.append(Section("figures", "All variants together", tuple(figures)))
    sections += about
    sections.append(Section("evidence", "Each claim", tuple(map(_details, judged))))
    return ClaimsPage("Claims about fine-tuning, judged from these runs", tuple(sections))


def advice(reached: Sequence[Judgement]) -> Iterator[Block]:
    """What follows in practice from the claims that are settled."""
    told = {
        text: one
        for one in reached
        if one.outcome in LEANINGS and (text := getattr(one.claim.advice, one.outcome))
    }
    if told:
        yield prose("For models, data and budgets like these, from the settled claims alone:")
    for text, one in told.items():
        yield prose(text, f" ({one.claim.sentence}: {one.outcome}.)", bullet=True)


def by_verdict(judged: Sequence[Judgement]) -> list[Judgement]:
    """What is settled first, what is out of reach last."""
    return sorted(judged, key=lambda one: ORDER.index(one.outcome))


def _out_of_reach(judged: Sequence[Judgement]) -> Iterator[Block]:
    """What was not judged, and why, in a line each."""
    found = [one for one in judged if one.ground is None]
    if found:
        yield prose("Out of reach here:")
    for one in found:
        yield prose(f"{one.claim.sentence}: {measured(one)}", bullet=True)


def verdicts(judged: Sequence[Judgement]) -> Table:
    """A line for each claim and ground: the verdict and the measurement that it rests on."""
    columns = (
        Column("claim", number=False),
        Column("verdict", number=False),
        Column("measured", number=False),
        Column("claimed for", number=False, help="parameters of the models"),
    )
    main = main_judged(judged)
    rows = tuple(
        (
            Cell(one.claim.sentence + _elsewhere(one.ground, main), one.claim.name),
            Cell(one.outcome, one.outcome, TONES[one.outcome]),
            Cell(measured(one), None),
            Cell(size_claimed(one), None),
        )
        for one in judged
    )
    return Table("claims", columns, rows, caption(judged))


def ground_here(reached: Sequence[Judgement]) -> str:
    """The model, device and budget of the main ground; empty where there is none."""
    main = main_judged(reached)
    if main is None:
        return ""
    told = f"{main.model} on {main.device}, {_billions([main.billions])} parameters"
    return told if main.tokens is None else f"{told}, {_budget(main)}"


def _budget(ground: Ground) -> str:
    return f"{numbers.count(ground.tokens)} tokens, batches of {ground.batch}"


def _elsewhere(ground: Ground | None, main: Ground | None) -> str:
    """What is told of a ground that is not the main one."""
    if ground is None or main is None or ground is main:
        return ""
    told = _told_apart(ground, main)
    if ground.tokens is not None:
        told.append(_budget(ground))
    return f" ({', '.join(told)})" if told else ""


def _told_apart(ground: Ground, main: Ground) -> list[str]:
    """What tells a ground from the main one; what their suites decided where all else is alike."""
    told = _apart(ground, main)
    alike = not told and ground is not main and ground.plan.budget == main.plan.budget
    return [f"run {how_apart(main.plan, ground.plan)}"] if alike else told


def _apart(ground: Ground, main: Ground) -> list[str]:
    """What tells a ground from the main one, besides its budget."""
    parts = ((ground.model, main.model), (f"on {ground.device}", f"on {main.device}"))
    told = [own for own, its in parts if own != its]
    corpus = ground.other_corpus(main)
    return [*told, corpus] if corpus else told


def measured(one: Judgement) -> str:
    """What the verdict of a claim rests on, in a few words: of many parts, one that decides."""
    parts = [found.measured.short or found.measured.text for found in one.findings]
    places = [at for at, found in enumerate(one.findings) if found.outcome == one.outcome] or [0]
    text = parts[places[0]]
    if len(parts) <= FEW_PARTS:
        return text
    names = getattr(one.claim.checks[places[0]], "variant", ("",))
    return f"{names[0]}: {text} ({len(places)} of {len(parts)})"


def notes(reached: Sequence[Judgement]) -> Iterator[Caveat]:
    """What limits all verdicts of the table."""
    if any(one.elsewhere for one in reached):
        yield Caveat(
            "A verdict holds for the size of model and the length of training named above, or in "
            "its row. It neither confirms nor refutes the sentence for the sizes it was claimed "
            "for: the same command judges runs of larger models."
        )
    arms = [arm for one in reached if one.ground is not None for arm in one.ground.arms.values()]
    packed = packed_base(arm.row.plan for arm in arms if arm.row is not None)
    if packed:
        yield Caveat(packed)
    plans = [run.record.plan for arm in arms for row in arm.rows for run in row.runs]
    guessed = [f"which weights of {name} they started from" for name in assumed(plans)]
    guessed += [f"what suite {name} gave to every variant" for name in assumed_suites(plans)]
    if guessed:
        yield Caveat(
            f"Not all records say {' and '.join(guessed)}: those that do not are taken to have had "
            "what the others had."
        )


EXCLUDED = (
    "A sentence “A beats B” is contradicted where a gain of the margin "
    f"({USUAL_MARGIN * 100:.0f} %) is excluded, “A loses to B” where such a loss is, “reaches” "
    "where a loss larger than the margin is shown, “equal” where a larger difference either way is."
)
MANY = "Verdicts use wider intervals than those shown, since all comparisons are read together"
ALONE = (
    "One comparison is judged, and the interval shown is that of its verdict: 95 %, or where one "
    "end alone decides, each end at the level named beside it"
)


def widths(judged: Sequence[Judgement]) -> str:
    """What the intervals shown are to the verdicts."""
    findings = [finding for one in judged for finding in one.findings]
    noisy = sum(finding.measured.errors is not None for finding in findings)
    return ALONE if noisy == 1 else MANY


def caption(judged: Sequence[Judgement]) -> str:
    """How to read the table of verdicts."""
    used = widths(judged)
    each, so = (" Intervals are 95 %, each by itself.", OPEN) if used == MANY else ("", "")
    return (
        "Measured: the held-out perplexity of the first against that of the second, or what is "
        f"named.{each} A sentence “A beats B” is reproduced where any gain is shown, “reaches” "
        "where a loss of the margin is excluded, “equal” where the difference is shown to lie "
        f"within it. {EXCLUDED} Other margins "
        f"are named in the evidence. Undecided: neither is shown. {used}: the chance of any false "
        f"verdict on this page is at most {ALPHA * 100:.0f} % (Bonferroni over all comparisons, "
        f"and over the looks where a study may have stopped at several).{so} {BESIDE}"
    )


OPEN = (
    " So a row may be undecided although its own interval looks decided, and a study's own page "
    "(report.md), which answers fewer questions, may decide what this page leaves open."
)
BESIDE = (
    "Stored bits are counted and have no p-value. A best rate is where a parabola through the "
    "lowest loss of a search and its neighbours is lowest; its interval holds the noise between "
    "seeds, and how far away the cubic through one rate more is lowest. All that was measured for "
    "a claim stands at the end."
)


def summary(judged: Sequence[Judgement]) -> str:
    """How many claims came out how."""
    counts = Counter(one.outcome for one in judged)
    claims = len({one.claim.name for one in judged})
    told = ", ".join(f"{counts[name]} {name}" for name in ORDER if counts[name])
    again = "" if len(judged) == claims else ", some judged on runs of more than one budget"
    return f"{claims} claim{'' if claims == 1 else 's'}{again}: {told}."


def size_here(one: Judgement, main: Ground | None) -> str:
    """The size of the model on which a claim was judged, and how much it was trained.

    Of a ground that is not the ``main`` one, also what else tells it apart.
    """
    if one.ground is None:
        return "–"
    parts = [_billions([one.ground.billions])]
    if one.ground.tokens is not None:
        parts.append(f"{numbers.count(one.ground.tokens)} tokens")
    return ", ".join(parts if main is None else [*parts, *_told_apart(one.ground, main)])


def size_claimed(one: Judgement) -> str:
    """The sizes that a claim was made for."""
    return _billions(one.claim.claimed.billions) or "not said"


def _billions(sizes: Sequence[float | None]) -> str:
    known = sorted(size for size in sizes if size is not None)
    if not known:
        return ""
    shown = [f"{size:.3g}" if size < 1 else f"{size:g}" for size in known]
    return f"{shown[0]} B" if len(known) == 1 else f"{shown[0]} to {shown[-1]} B"


def evidence(one: Judgement) -> str:
    """What was measured, and what would decide what is open."""
    parts = []
    for finding in one.findings:
        text = finding.measured.text
        if len(one.findings) > 1 and finding.outcome != one.outcome:
            text += f" ({finding.outcome})"
        parts.append(text)
    open_parts = [f.measured.decides for f in one.findings if f.outcome == "undecided"]
    wanted = next((text for text in open_parts if text), "")
    return "; ".join(parts) + (f". To decide it: {wanted}" if wanted else "")


def _details(one: Judgement) -> Details:
    source = one.claim.source
    lines: list[Block] = [
        prose(strong("Source: "), f"{source.title}, {source.link}", _place(source.place))
    ]
    if one.claim.claimed.data:
        lines.append(prose(strong("Claimed on: "), one.claim.claimed.data))
    if one.claim.published:
        told = "; ".join(f"{n.what} {n.value:g} {n.unit}".strip() for n in one.claim.published)
        lines.append(prose(strong("Published: "), told))
    if one.ground is not None:
        lines.append(prose(strong("Here: "), f"{one.ground.title}. {_rows(one)}"))
    lines.append(prose(strong(f"{one.outcome.capitalize()}: "), evidence(one)))
    if one.claim.note:
        lines.append(prose(strong("Note: "), one.claim.note))
    return Details(f"{one.claim.sentence} – {one.outcome}", tuple(lines))


def _place(place: str) -> str:
    return f", {place}" if place else ""


def _rows(one: Judgement) -> str:
    """How many variants and runs the ground has."""
    assert one.ground is not None  # noqa: S101 - the caller has looked
    rows: list[Row] = [arm.row for arm in one.ground.arms.values() if arm.row is not None]
    runs = sum(len(row.finished) for row in rows)
    return f"{len(rows)} variants, {runs} runs"
