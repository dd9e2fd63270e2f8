"""Agreement: weights, configuration, tokenizer and the model's TOML must be of one model."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, InvalidFile
from harness.spec.model import FolderSource, Model

SHOWN = 6
CONFIG = "config.json"


def check_loading(info: Mapping[str, Any], folder: Path) -> None:
    """Refuse weights that transformers had to fill in, leave out or replace.

    ``info`` is what ``from_pretrained(output_loading_info=True)`` tells.

    Raises:
        InvalidFile: naming the weights. Transformers would go on with random ones.
    """
    wrong = []
    if info["missing_keys"]:
        wrong.append(f"missing from the files: {_names(info['missing_keys'])}")
    if info["unexpected_keys"]:
        wrong.append(f"in the files but not in the model: {_names(info['unexpected_keys'])}")
    if info["mismatched_keys"]:
        shapes = [f"{name} {_shape(found)}, not {_shape(wanted)}"
                  for name, found, wanted in info["mismatched_keys"]]  # fmt: skip
        wrong.append(f"of another shape: {_names(shapes)}")
    if wrong:
        raise InvalidFile(
            "the weights are not those of the model that config.json describes: "
            + "; ".join(wrong),
            where=folder,
            expected="every weight of the model in *.safetensors, and no other",
            hint="fetch the model again; if config.json was edited, undo it",
        )


def check_folder(model: Model, folder: Path) -> None:
    """Refuse a folder whose weights could not be loaded; their values are not read.

    The headers of the weights are compared by transformers itself, which knows what files of
    other layouts become. Code that lies beside the weights is not run.

    Raises:
        InvalidFile: as :func:`check_config`, :func:`check_shapes` and :func:`check_loading`.
    """
    from transformers import AutoModelForCausalLM

    check_config(model, folder)
    with as_unreadable(folder, whatever=True):
        check_shapes(model, folder)
        _, info = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map="meta",
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    check_loading(info, folder)


@contextmanager
def as_unreadable(
    folder: Path, what: str = "model", *, expected: str | None = None, whatever: bool = False
) -> Iterator[None]:
    """Say of transformers' errors that ``what`` is in ``folder`` cannot be loaded.

    ``whatever``: of every error. A damaged file ends in one of any kind (tokenizers raises a bare
    Exception); a model that is loaded for good may also run out of memory, which is no such error.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    kinds = (
        (Exception,) if whatever else (OSError, ValueError, SafetensorError, StrictDataclassError)
    )
    try:
        yield
    except HarnessError:
        raise
    except kinds as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InvalidFile(
            f"transformers cannot load the {what}: {said:.600}", where=folder, expected=expected
        ) from error


def check_shapes(model: Model, folder: Path, *, trust_remote_code: bool = False) -> None:
    """Refuse a folder whose model has not the shapes that the model's TOML plans with.

    Raises:
        InvalidFile: naming the weights that differ.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from harness.weights.shape import meta_model

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    found = {name: tuple(item.shape) for name, item in built.named_parameters()}
    planned = meta_model(model.model_copy(update={"added_tokens": 0}))
    wanted = {name: tuple(item.shape) for name, item in planned.named_parameters()}
    wrong = [f"{name} is not in the folder's model" for name in wanted.keys() - found.keys()]
    wrong += [f"{name} is not planned" for name in found.keys() - wanted.keys()]
    wrong += [
        f"{name} is {_shape(found[name])}, planned {_shape(wanted[name])}"
        for name in wanted.keys() & found.keys()
        if found[name] != wanted[name]
    ]
    if wrong:
        raise InvalidFile(
            f"the weights are of another shape than [config] says: {_names(wrong)}",
            where=_toml(model),
            expected=f"the configuration in {folder / CONFIG}",
        )


def check_config(model: Model, folder: Path) -> None:
    """Refuse a model TOML that states another value than the folder's ``config.json``.

    Plans and forecasts are made from the one, the model from the other. Fields that only one of
    them states are not compared.

    Raises:
        InvalidFile: naming the fields.
    """
    found = read_config(folder)
    skipped = {"model_type"} if "auto_map" in found else set()  # a class of the repository's own
    wrong = [
        f"{name} = {value!r} there, {found[name]!r} in {CONFIG}"
        for name, value in model.config.items()
        if name in found and not _same(value, found[name]) and name not in skipped
    ]
    if wrong:
        raise InvalidFile(
            f"[config] is not that of the weights: {'; '.join(wrong)}",
            where=_toml(model),
            expected=f"the values of {folder / CONFIG}",
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a folder's ``config.json``; none where it cannot be read."""
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def local_folder(model: Model) -> Path | None:
    """Where a model lies whose source is a folder."""
    source = model.source
    return Path(source.path).expanduser() if isinstance(source, FolderSource) else None


def check_tokens(model: Model, folder: Path, tokens: Mapping[str, int]) -> None:
    """Refuse tokens that have no row in the embedding.

    ``tokens`` are ids by what they are for, such as the padding token's.

    Raises:
        InvalidFile: with the number of rows to add.
    """
    config = read_config(folder)
    rows = config.get("vocab_size") or model.config.get("vocab_size")
    if not isinstance(rows, int) or not tokens:
        return
    beyond = {
        what: number for what, number in tokens.items() if number >= rows + model.added_tokens
    }
    if beyond:
        listed = ", ".join(f"{what} has id {number}" for what, number in sorted(beyond.items()))
        added = f" and added_tokens = {model.added_tokens}" if model.added_tokens else ""
        raise InvalidFile(
            f"the tokenizer has tokens without a row in the embedding: {listed}",
            where=_toml(model),
            expected=f"ids below {rows + model.added_tokens} (vocab_size = {rows}{added})",
            hint=f"set added_tokens = {max(beyond.values()) + 1 - rows}",
        )


def _toml(model: Model) -> str:
    return f"model {model.name}, [config]"


def _same(one: object, other: object) -> bool:
    """Equal, for floats to the precision of float32, in which some formats keep them."""
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-6)
    return one == other


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def _shape(shape: Iterable[int]) -> str:
    return "×".join(str(size) for size in shape)
