"""Plans: refuse what cannot work before anything is downloaded or loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from harness.errors import InvalidFile, UnknownName, Unpredicted
from harness.spec import registry
from harness.spec.registry import is_usual

if TYPE_CHECKING:
    from harness.spec.model import Model
    from harness.spec.plan import Plan
    from harness.spec.variant import Adapter


def check_plans(plans: Sequence[Plan]) -> None:
    """Check what can be known of ``plans`` without their weights.

    Raises:
        UserError: the first plan that cannot work, with what to change.
    """
    from harness.score.check import check_asked

    check_asked(plans[0].score)
    check_own_tasks(plans[0])
    check_tokenizer(plans[0].model)
    for planned in plans:
        check_adapter(planned)
        check_forms(planned)
    for model in _models(plans):
        check_model(model)


def check_own_tasks(planned: Plan) -> None:
    """Refuse task files of one's own that no run could score; their data lies on this machine."""
    from harness.spec.plan_digests import is_task_file

    if not any(is_task_file(task.name) for task in planned.score.tasks):
        return
    from harness.score.check import check_own_tasks as check_tasks
    from harness.weights.fetch import quiet_libraries

    quiet_libraries()
    check_tasks(planned.score)


def check_primary(planned: Plan, primary: str | None) -> None:
    """Refuse a score that is to decide (the suite's, if None) and that no run would take."""
    wanted = primary or planned.score.primary
    if wanted in (None, "perplexity"):
        return
    from harness.score.check import check_primary as check_score

    check_score(planned.score, wanted)


def check_adapter(planned: Plan) -> None:
    """Refuse what PEFT would, or what does not fit the model, naming the file that states it."""
    if planned.adapter is None:
        return
    asked = planned.request
    variant, settings = (planned.variant, ()) if asked is None else (asked.variant, asked.settings)
    check_fields(planned.adapter, variant, settings)
    if not is_usual(planned.adapter):
        from harness.weights.shape import count_plan

        with _naming(variant, settings), suppress(Unpredicted):
            count_plan(planned)


def check_fields(adapter: Adapter, variant: str, settings: tuple[str, ...] = ()) -> None:
    """Refuse what PEFT would."""
    if is_usual(adapter):
        return
    from harness.weights.wrapping import adapter_config

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
    """Refuse forms that the plan cannot have: no merge, no GGUF type, no library, no scheme."""
    from harness.spec.form import parse_form

    forms = [parse_form(name) for name in planned.score.forms]
    merging = [form for form in forms if form.merges]
    if not planned.trains or not merging:
        return
    from harness.forms.check import check_form

    for form in merging:
        check_form(planned, form)


def _models(plans: Sequence[Plan]) -> list[Model]:
    """Each model once."""
    found: list[Model] = []
    found.extend(one.model for one in plans if one.model not in found)
    return found


def check_model(model: Model) -> None:
    """Refuse a folder whose weights are not those of its configuration and the model's TOML.

    Where code from the repository would have to run, only the configuration is compared.
    """
    from harness.weights.agreement import check_config, check_folder, local_folder

    folder = local_folder(model)
    if folder is None:
        return
    if model.trust_remote_code or not folder.is_dir():
        check_config(model, folder)
        return
    from harness.weights.fetch import quiet_libraries

    quiet_libraries()
    check_folder(model, folder)


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
    check_tokens(model, folder, renderer.own_tokens)
