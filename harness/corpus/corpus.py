"""build_corpus: from the suite's corpus section to training and held-out conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from harness.corpus.conversation import Conversation, PreferencePair
from harness.corpus.fields import Complaints
from harness.corpus.funnel import CountTokens, Funnel
from harness.corpus.selection import Filter, conversations, filters, preference_pairs
from harness.corpus.sources import CorpusSource, find_source, read_trees
from harness.corpus.splits import (
    Exchange,
    check_leakage,
    near_duplicates,
    scored_exchanges,
    share_of,
    side_of,
    without_leaks,
)
from harness.corpus.trees import MessageTree, TreeGrower, prune
from harness.errors import TooFew
from harness.records.corpus_result import CorpusResult
from harness.records.events import SILENCE, Progress
from harness.spec.suite import CorpusSpec

PROGRESS_TREES = 500
FEW_TREES = 20


@dataclass(frozen=True)
class Corpus:
    """What a suite trains on and is scored on; ``pairs`` come from held-out trees only.

    ``validation`` is for tuning, stopping and choosing; it is empty unless the suite asks for it.
    """

    train: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]
    pairs: tuple[PreferencePair, ...]
    result: CorpusResult
    validation: tuple[Conversation, ...] = ()


def build_corpus(
    spec: CorpusSpec, progress: Progress = SILENCE, count_tokens: CountTokens | None = None
) -> Corpus:
    """Read the source, filter, select, split. Needs neither torch nor a tokenizer.

    With ``count_tokens`` (for example :meth:`Renderer.count_tokens`) the funnel tells tokens
    too; without it they are null.

    Raises:
        CorpusError: the source cannot be used, or nothing is left of it on one side.
        FetchError: the hub cannot be reached.
        LeakageError: a held-out text occurs in training and ``on_leak`` is "error".
    """
    source = find_source(spec)
    funnel = Funnel(count_tokens)
    trees, columns = _read(source, spec, funnel, progress)
    trees = _filtered(trees, spec, funnel)
    chosen = [one for tree in trees for one in conversations(tree, spec)]
    funnel.after_conversations(
        "policy", chosen, f"not on {spec.policy}, or a prompt without a reply"
    )
    chosen = _distinct(chosen, spec, funnel, progress)
    sides = _apart(_split(chosen, spec), trees, spec, funnel)
    _check_sides(source, spec, sides, funnel, len({one.tree_id for one in chosen}))
    return Corpus(
        tuple(sides.train),
        tuple(sides.held_out),
        tuple(sides.pairs),
        CorpusResult(
            name=source.name,
            sha256=source.sha256,
            is_sample=source.is_sample,
            train_conversations=len(sides.train),
            held_out_conversations=len(sides.held_out),
            validation_conversations=len(sides.validation),
            funnel=tuple(funnel.rows),
            columns=columns,
            languages=language_mix(sides.train, sides.held_out),
        ),
        tuple(sides.validation),
    )


def _read(
    source: CorpusSource, spec: CorpusSpec, funnel: Funnel, progress: Progress
) -> tuple[list[MessageTree], tuple[tuple[str, str], ...]]:
    complaints = Complaints(spec.on_bad)
    grower = TreeGrower(complaints)
    progress.note(f"reading {source.name}")
    trees = []
    for tree in read_trees(source, spec, grower):
        trees.append(tree)
        if len(trees) % PROGRESS_TREES == 0:
            progress.note(f"reading {source.name}: {len(trees):,} trees")
    left_out = []
    if complaints.total:
        left_out.append(f"{complaints.total:,} bad records or messages: {complaints.summary()}")
    if grower.orphans:
        left_out.append(f"{grower.orphans:,} messages below a parent that is not in the data")
    funnel.after_trees("read", trees, "; ".join(left_out))
    return trees, grower.columns.summary()


def _filtered(trees: list[MessageTree], spec: CorpusSpec, funnel: Funnel) -> list[MessageTree]:
    for rule in filters(spec):
        kept = [tree for tree in (_apply(rule, tree) for tree in trees) if tree is not None]
        why = rule.rule
        if rule.name == "tree state":
            lost = Counter(tree.state for tree in trees if not rule.keeps_tree(tree))
            why = ", ".join(f"{count} {state}" for state, count in lost.most_common())
        trees = kept
        funnel.after_trees(rule.name, trees, why)
    return trees


def _apply(rule: Filter, tree: MessageTree) -> MessageTree | None:
    root = prune(tree.root, rule.keeps) if rule.keeps_tree(tree) else None
    if root is None or root is tree.root:
        return tree if root is not None else None
    return replace(tree, root=root)


def _distinct(
    chosen: list[Conversation], spec: CorpusSpec, funnel: Funnel, progress: Progress
) -> list[Conversation]:
    if spec.near_duplicate_threshold is None:
        return chosen
    progress.note("looking for near duplicates")
    found = near_duplicates(chosen, spec.near_duplicate_threshold, progress)
    kept = [one for index, one in enumerate(chosen) if index not in found]
    why = f"{spec.near_duplicate_threshold:g} or more similar to an earlier one of another tree"
    funnel.after_conversations("near duplicates", kept, why)
    return kept


@dataclass
class _Sides:
    train: list[Conversation] = field(default_factory=list)
    validation: list[Conversation] = field(default_factory=list)
    held_out: list[Conversation] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)


def _split(chosen: Iterable[Conversation], spec: CorpusSpec) -> _Sides:
    sides = _Sides()
    for one in chosen:
        getattr(sides, side_of(one.tree_id, one.language, spec)).append(one)
    return sides


def _apart(sides: _Sides, trees: Iterable[MessageTree], spec: CorpusSpec, funnel: Funnel) -> _Sides:
    """Limit the sides that are scored, and make sure that nothing of them is trained on."""
    funnel.after_conversations("held out", sides.held_out, "to the other sides")
    sides.held_out = _limited(sides.held_out, spec.held_out_limit, "held-out limit", funnel)
    scored = {one.tree_id for one in sides.held_out}
    sides.pairs = [pair for tree in trees if tree.id in scored for pair in preference_pairs(tree)]
    held_out = scored_exchanges(sides.held_out, sides.pairs)
    if spec.validation_fraction:
        funnel.restart()
        funnel.after_conversations("validation", sides.validation)
        sides.validation = _clean(sides.validation, held_out, "held-out", spec, funnel)
        sides.validation = _limited(
            sides.validation, spec.validation_limit, "validation limit", funnel
        )
    funnel.restart()
    funnel.after_conversations("training", sides.train)
    sides.train = _clean(sides.train, held_out, "held-out", spec, funnel)
    if sides.validation:
        tuned_on = scored_exchanges(sides.validation, ())
        sides.train = _clean(sides.train, tuned_on, "validation", spec, funnel)
    return sides


def _limited(
    side: list[Conversation], limit: int | None, step: str, funnel: Funnel
) -> list[Conversation]:
    if limit is None or len(side) <= limit:
        return side
    drawn = sorted(side, key=lambda one: share_of(step, one.id))
    kept = {one.id for one in drawn[:limit]}
    side = [one for one in side if one.id in kept]
    funnel.after_conversations(step, side, f"over {step.replace('-', '_').replace(' ', '_')}")
    return side


def _clean(
    side: list[Conversation],
    scored: Mapping[Exchange, str],
    other: str,
    spec: CorpusSpec,
    funnel: Funnel,
) -> list[Conversation]:
    """``side`` without what it shares with a side that is scored, or a LeakageError."""
    if spec.on_leak == "drop":
        side, found = without_leaks(side, scored)
        why = f"share {len(found)} prompts and replies with the {other} side" if found else ""
        funnel.after_conversations("leakage", side, why)
    check_leakage(side, scored, other)
    return side


def _check_sides(
    source: CorpusSource, spec: CorpusSpec, sides: _Sides, funnel: Funnel, trees: int
) -> None:
    """Refuse a corpus of which a side is empty; ``trees`` is what there was to split.

    Raises:
        TooFew: with every step, and with what to change.
    """
    wanted = {"training": sides.train, "held-out": sides.held_out}
    if spec.validation_fraction:
        wanted["validation"] = sides.validation
    missing = [name for name, side in wanted.items() if not side]
    if not missing:
        return
    steps = "\n            ".join(
        f"{row.step}: {row.messages} messages left ({row.removed or 'nothing removed'})"
        for row in funnel.rows
    )
    raise TooFew(
        f"no {missing[0]} conversations are left",
        where=source.name,
        expected=f"conversations on every side; the steps were\n            {steps}",
        hint=_hint(trees),
    )


def _hint(trees: int) -> str:
    """What to change where a side is empty after ``trees`` were split."""
    if trees == 1:
        return (
            "all conversations begin with the same prompt, and what shares its first prompt stays "
            'on one side; if it is an instruction, make it their system message (column "system")'
        )
    if 1 < trees < FEW_TREES:
        return (
            f"the conversations begin with {trees} different prompts only, and what shares its "
            "first prompt stays on one side: raise held_out_fraction, or give a larger corpus"
        )
    return "loosen the filters, change the fractions in [corpus], or give a larger corpus"


def language_mix(
    train: Iterable[Conversation], held_out: Iterable[Conversation]
) -> tuple[tuple[str, int, int], ...]:
    """(language, training conversations, held-out conversations), most first."""
    ours = Counter(one.language for one in train)
    theirs = Counter(one.language for one in held_out)
    order = sorted(ours | theirs, key=lambda name: (-ours[name] - theirs[name], name))
    return tuple((name, ours[name], theirs[name]) for name in order)
