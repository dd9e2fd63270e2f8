"""Preflight: refuse what cannot work before anything is downloaded or loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CorpusError, InvalidFile, StorageError, UnknownName
from harness.spec import registry

if TYPE_CHECKING:
    from harness.corpus.corpus import Corpus
    from harness.spec.model import Model
    from harness.spec.plan import Plan
    from harness.spec.suite import CorpusSpec
    from harness.spec.variant import Adapter


FEWEST_TREES = 2  # one tree has no spread, so nothing could be said of its score
LEAST_FREE = 64 << 20  # bytes: records, items, logs and pages of a small run


def preflight(plans: Sequence[Plan]) -> None:
    """Check what can be known of ``plans`` without their weights.

    Raises:
        UserError: the first plan that cannot work, with what to change.
    """
    from harness.score.preflight import check_asked

    check_asked(plans[0].score)
    check_tokenizer(plans[0].model)
    for planned in plans:
        check_adapter(planned)
        check_forms(planned)
        check_model(planned)


def check_run(plans: Sequence[Plan], reports: Path) -> None:
    """Check for ``run`` what takes longer to know: the data, the tasks' rows, the disk.

    Raises:
        UserError: the corpus cannot be used, or the data of a task cannot be had.
        LeakageError: a held-out text occurs in training.
        StorageError: there is no room for results.
    """
    if not plans:
        return
    check_space(reports, LEAST_FREE)
    for corpus in dict.fromkeys(planned.corpus for planned in plans):
        if not corpus.source.startswith("hub:"):
            check_corpus(corpus)
    check_tasks(plans[0])


def check_corpus(spec: CorpusSpec) -> Corpus:
    """Read a corpus on this machine, and refuse one whose score would have no spread."""
    from harness.corpus.corpus import build_corpus

    corpus = build_corpus(spec)
    trees = {one.tree_id for one in corpus.held_out}
    if len(trees) < FEWEST_TREES:
        raise CorpusError(
            f"{len(trees)} held-out conversation: no interval can be told from one",
            where=corpus.result.name,
            expected=f"{FEWEST_TREES} or more independent held-out conversations",
            hint="--set corpus.held_out_fraction=0.3, no held_out_limit of 1, or more data",
        )
    return corpus


def check_tasks(planned: Plan) -> None:
    """Refuse a task whose data cannot be had; those on the corpus's own documents need none."""
    from harness.score.catalogue import asked_tasks, document_kinds

    spec = planned.score
    if all(document_kinds(task, spec.include_path) for task in asked_tasks(spec)):
        return
    from harness.score.preflight import preflight as check_data
    from harness.weights.fetch import quiet_libraries

    quiet_libraries()
    check_data(planned)


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin where the disk has less than ``needed`` bytes free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise StorageError(
            f"only {free >> 20} MiB are free on the disk of {folder}",
            where=there,
            expected=f"{needed >> 20} MiB or more",
            hint="free some space, or choose another folder with --reports",
        )


def check_adapter(planned: Plan) -> None:
    """Refuse a plan whose adapter PEFT would refuse, naming the file that states it."""
    if planned.adapter is not None:
        asked = planned.request
        variant, settings = (
            (planned.variant, ()) if asked is None else (asked.variant, asked.settings)
        )
        check_fields(planned.adapter, variant, settings)


def check_fields(adapter: Adapter, variant: str, settings: tuple[str, ...] = ()) -> None:
    """Refuse what PEFT would; LoRA's defaults with other whole numbers above 0 need no look."""
    usual = {"type": "LORA", **registry.LORA_DEFAULTS}
    given = {"type": adapter.type, **adapter.fields}
    changed = {name: value for name, value in given.items() if value != usual.get(name)}
    if all(type(n) is int and n > 0 and type(usual.get(k)) is int for k, n in changed.items()):
        return
    from harness.weights.adapter import adapter_config

    with _naming(variant, settings):
        adapter_config(adapter)
        rank = adapter.fields.get("r", 1)
        if isinstance(rank, int) and rank < 1:  # PEFT finds this out layer by layer
            what = f"{adapter.type} adapter field r = {rank}"
            raise InvalidFile(what, where="[adapter] r", expected="1 or more")


@contextmanager
def _naming(variant: str, settings: tuple[str, ...]) -> Iterator[None]:
    """Say which file an error about an adapter is about, and what was set besides."""
    try:
        yield
    except (InvalidFile, UnknownName) as error:
        own = [text for text in settings if text.startswith("adapter.")]
        changes = f", with --set {' '.join(own)}" if own else ""
        error.where = f"{registry.variant_path(variant)}, {error.where}{changes}"
        raise


def check_forms(planned: Plan) -> None:
    """Refuse forms that the plan's method or model has not: no merge, no GGUF, no library."""
    from harness.spec.form import parse_form

    forms = [parse_form(name) for name in planned.score.forms]
    merging = [form for form in forms if form.merges]
    if planned.adapter is None or not merging:
        return
    from harness.forms.check import check_form

    for form in merging:
        check_form(planned, form)


def check_model(planned: Plan) -> None:
    """Refuse a folder whose ``config.json`` says something else than the model's TOML."""
    from harness.weights.agreement import check_config, local_folder

    folder = local_folder(planned.model)
    if folder is not None:
        check_config(planned.model, folder)


def check_tokenizer(model: Model) -> None:
    """Refuse a folder's tokenizer that no run could use: no template, or tokens without a row.

    Where code from the repository would have to run, nothing is looked at.
    """
    from harness.weights.agreement import check_tokens, local_folder

    folder = local_folder(model)
    if folder is None or model.trust_remote_code or not folder.is_dir():
        return
    from harness.corpus.render import Renderer
    from harness.weights.fetch import quiet_libraries
    from harness.weights.load import load_tokenizer

    quiet_libraries()
    renderer = Renderer(load_tokenizer(folder), model.chat_template)
    check_tokens(
        model, folder, {"padding": renderer.pad_id, "the end of a turn": renderer.end_of_turn_id}
    )
