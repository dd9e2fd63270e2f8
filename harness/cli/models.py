"""Models: refuse a local model that does not fit its TOML or tokenizer before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.spec.model import Model
    from harness.spec.plan import Plan


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
