"""Export: one run's result in one form, as a folder that plain libraries load."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import numbers
from harness.deploy.companions import deployed_tokenizer, generation_config, saved_bytes
from harness.deploy.results import check_deployable
from harness.deploy.size import export_bytes, folder_bytes
from harness.deploy.whole import check_room, check_target, write_whole
from harness.forms.again import again_bytes, check_stored
from harness.forms.check import check_form
from harness.forms.make import Making, Parts, write_form
from harness.records.events import Progress
from harness.records.store import StoredRun
from harness.spec.device import Device
from harness.spec.form import Form
from harness.spec.model import HubSource, Model
from harness.spec.storage import free_bytes, write_bytes
from harness.spec.variant import Dtype

if TYPE_CHECKING:
    from harness.corpus.render import Renderer


@dataclass(frozen=True)
class ExportOrder:
    """What is wanted: a form, where to, in which dtype (None: the run's), on which device."""

    form: Form
    target: Path
    dtype: Dtype | None = None
    device: Device | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    form: Form
    bytes: int


def export(run: StoredRun, order: ExportOrder, progress: Progress) -> Exported:
    """Write the result of ``run`` in a form; the folder is whole or absent.

    Raises:
        UserError: the target exists, the run has no adapter, or its method refuses the form.
        StorageError: no room on the disk.
        InvalidFile: the base model is no longer the one that was trained on.
    """
    from harness.weights.fetch import fetch, quiet_libraries

    check_target(order.target)
    plan = check_deployable(run)
    if order.form.kind == "16bit":
        order = replace(order, form=Form("training"))
    check_form(plan, order.form)
    check_stored(order.form, plan)
    quiet_libraries()
    source = fetch(plan.model, progress)
    dtype = order.dtype or plan.stored
    parts = make_parts(run, source, order.device, trusted=order.trust_remote_code)
    work = _Work(parts, make_renderer(parts), order.form, dtype, progress)
    needed = work.needed()
    progress.note(
        f"{order.form.asked} needs {numbers.size(needed)} at {order.target.parent.absolute()}, "
        f"{numbers.size(free_bytes(order.target))} are free"
    )
    check_room(order.target, needed)
    folder = write_whole(order.target, work.fill)
    return Exported(folder, order.form, folder_bytes(folder))


def make_parts(
    run: StoredRun, source: Path, device: Device | None, *, trusted: bool = False
) -> Parts:
    """What the forms of a run are made from, on ``device`` (None: where it was trained)."""
    plan = run.record.plan
    if device is not None:
        plan = plan.model_copy(update={"device": device})
    return Parts(plan, source, run.folder.adapter, trusted=trusted and plan.model.trust_remote_code)


def make_renderer(parts: Parts) -> Renderer:
    """The run's renderer: its tokenizer, its chat template, its end of turn."""
    from harness.corpus.render import Renderer
    from harness.weights.load import load_tokenizer

    tokenizer = load_tokenizer(parts.source, trust_remote_code=parts.trusted)
    return Renderer(tokenizer, parts.plan.model.chat_template)


@dataclass(frozen=True)
class _Work:
    """One export under way."""

    parts: Parts
    renderer: Renderer
    form: Form
    dtype: Dtype
    progress: Progress

    def needed(self) -> int:
        """Bytes that it takes on the disk, at most."""
        tokenizer = saved_bytes(deployed_tokenizer(self.renderer))
        parts, form = self.parts, self.form
        again = 0 if form.scheme is None else again_bytes(form, parts.plan)
        return again + export_bytes(form, parts.source, parts.adapter, self.dtype, tokenizer)

    def fill(self, folder: Path) -> None:
        """Write weights and companions into an empty folder."""
        tokenizer = deployed_tokenizer(self.renderer)
        speech = None
        if self.form.quant is not None:
            from harness.forms.gguf.write import Speech

            speech = Speech(tokenizer, self.renderer.end_of_turn_id)
        making = Making(self.dtype, speech, self.progress.note, self.progress.advance)
        write_form(self.parts, self.form, folder, making)
        for name in ("config.json", "adapter_config.json"):
            _forget_places(folder / name, self.parts.plan.model)
        tokenizer.save_pretrained(folder)
        generation_config(self.parts.source, self.renderer).save_pretrained(folder)


def _forget_places(path: Path, model: Model) -> None:
    """Name the base model as others know it; a path of this machine says nothing to them."""
    if not path.is_file():
        return
    data = json.loads(path.read_text(encoding="utf-8"))
    data.pop("_name_or_path", None)
    if "base_model_name_or_path" in data:
        hub = model.source if isinstance(model.source, HubSource) else None
        data["base_model_name_or_path"] = hub.repository if hub else model.name
        data["revision"] = hub.revision if hub else None
    write_bytes(path, (json.dumps(data, indent=2, sort_keys=True) + "\n").encode())
