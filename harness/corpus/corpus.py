"""build_corpus: from the suite's corpus section to training and held-out conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.corpus.conversation import Conversation, PreferencePair
from harness.corpus.fields import Complaints
from harness.corpus.funnel import CountTokens, Funnel
from harness.corpus.selection import Filter, conversations, filters, preference_pairs
from harness.corpus.sources import Source, find_source, read_trees
from harness.corpus.splits import (
    check_leakage,
    held_out_texts,
    is_held_out,
    near_duplicates,
    share_of,
    without_leaks,
)
from harness.corpus.trees import MessageTree, TreeGrower, prune
from harness.errors import CorpusError
from harness.records.events import Progress, Silence
from harness.records.record import CorpusResult
from harness.spec.suite import CorpusSpec

SILENCE = Silence()
PROGRESS_TREES = 500


@dataclass(frozen=True)
class Corpus:
    """What a suite trains on and is scored on; ``pairs`` come from held-out trees only."""

    train: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]
    pairs: tuple[PreferencePair, ...]
    result: CorpusResult


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
    trees = _filtered(_read(source, spec, funnel, progress), spec, funnel)
    chosen = [one for tree in trees for one in conversations(tree, spec)]
    funnel.after_conversations(
        "policy", chosen, f"not on {spec.policy}, or a prompt without a reply"
    )
    chosen = _distinct(chosen, spec, funnel, progress)
    train, held_out = _split(chosen, spec)
    train, held_out, pairs = _apart(train, held_out, trees, spec, funnel)
    _check_sides(source, train, held_out, funnel)
    return Corpus(
        tuple(train),
        tuple(held_out),
        tuple(pairs),
        CorpusResult(
            name=source.name,
            sha256=source.sha256,
            is_sample=source.is_sample,
            train_conversations=len(train),
            held_out_conversations=len(held_out),
            funnel=tuple(funnel.rows),
            languages=language_mix(train, held_out),
        ),
    )


def _read(
    source: Source, spec: CorpusSpec, funnel: Funnel, progress: Progress
) -> list[MessageTree]:
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
    return trees


def _filtered(trees: list[MessageTree], spec: CorpusSpec, funnel: Funnel) -> list[MessageTree]:
    for rule in filters(spec):
        kept = [tree for tree in (_apply(rule, tree) for tree in trees) if tree is not None]
        why = rule.rule
        if rule.name == "tree state":
            lost = Counter(tree.state for tree in trees if not rule.keeps_tree(tree))
            why = ", ".join(f"{count} {state}" for state, count in lost.most_common())
        changed = len(kept) != len(trees) or any(
            one is not other for one, other in zip(kept, trees, strict=True)
        )
        trees = kept
        funnel.after_trees(rule.name, trees, why if changed else "")
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
    why = f"{spec.near_duplicate_threshold:g} or more alike with an earlier one of another tree"
    funnel.after_conversations("near duplicates", kept, why if found else "")
    return kept


def _split(
    chosen: Iterable[Conversation], spec: CorpusSpec
) -> tuple[list[Conversation], list[Conversation]]:
    sides: tuple[list[Conversation], list[Conversation]] = ([], [])
    for one in chosen:
        sides[is_held_out(one.tree_id, one.language, spec.held_out_fraction)].append(one)
    return sides


def _apart(
    train: list[Conversation],
    held_out: list[Conversation],
    trees: Iterable[MessageTree],
    spec: CorpusSpec,
    funnel: Funnel,
) -> tuple[list[Conversation], list[Conversation], list[PreferencePair]]:
    """Limit the held-out side, find its pairs, and make sure that nothing of it is trained on."""
    funnel.after_conversations("held out", held_out, "to the training side")
    if spec.held_out_limit is not None and len(held_out) > spec.held_out_limit:
        drawn = sorted(held_out, key=lambda one: share_of("held-out limit", one.id))
        kept = {one.id for one in drawn[: spec.held_out_limit]}
        held_out = [one for one in held_out if one.id in kept]
        funnel.after_conversations("held-out limit", held_out, "over held_out_limit")
    scored = {one.tree_id for one in held_out}
    pairs = [pair for tree in trees if tree.id in scored for pair in preference_pairs(tree)]
    texts = held_out_texts(held_out, pairs)
    funnel.restart()
    funnel.after_conversations("training", train)
    if spec.on_leak == "drop":
        train, found = without_leaks(train, texts)
        funnel.after_conversations(
            "leakage", train, f"share {len(found)} texts with the held-out side" if found else ""
        )
    check_leakage(train, texts)
    return train, held_out, pairs


def _check_sides(
    source: Source, train: Sequence[Conversation], held_out: Sequence[Conversation], funnel: Funnel
) -> None:
    if train and held_out:
        return
    steps = "\n            ".join(
        f"{row.step}: {row.messages} messages left ({row.removed or 'nothing removed'})"
        for row in funnel.rows
    )
    raise CorpusError(
        f"no {'held-out' if train else 'training'} conversations are left",
        where=source.name,
        expected=f"conversations on both sides; the steps were\n            {steps}",
        hint="loosen the filters, change held_out_fraction, or give a larger corpus",
    )


def language_mix(
    train: Iterable[Conversation], held_out: Iterable[Conversation]
) -> tuple[tuple[str, int, int], ...]:
    """(language, training conversations, held-out conversations), most first."""
    ours = Counter(one.language for one in train)
    theirs = Counter(one.language for one in held_out)
    order = sorted(ours | theirs, key=lambda name: (-ours[name] - theirs[name], name))
    return tuple((name, ours[name], theirs[name]) for name in order)
