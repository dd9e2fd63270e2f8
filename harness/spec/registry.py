"""Registry: the variants, suites and models that ship with the harness or that a user names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import UnknownName, UserError
from harness.spec.claim import Claim
from harness.spec.derived_names import changes_of, suite_name, with_changes
from harness.spec.model import DrawnSource, Model, RandomSource
from harness.spec.overrides import merge
from harness.spec.own_model import CONFIG as MODEL_CONFIG
from harness.spec.own_model import is_folder, is_hub_id, model_of_folder, model_of_hub
from harness.spec.peft_files import CONFIG, peft_file, read_peft_variant
from harness.spec.schema import parse, with_nulls
from harness.spec.schemes import resolve_quantization
from harness.spec.storage import meant, read_toml
from harness.spec.study import Study
from harness.spec.suite import Suite
from harness.spec.variant import Adapter, SuiteProtocol, Variant

PACKAGE = Path(__file__).parents[1]
MODELS = PACKAGE / "models"
SUITES = PACKAGE / "suites"
STUDIES = PACKAGE / "studies"
CLAIMS = PACKAGE / "claims"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}")

# alpha is the same at every rank: with the 1/r scale of LoRA the best learning rate then hardly
# depends on the rank (Schulman et al., "LoRA Without Regret", 2025).
LORA_DEFAULTS: dict[str, Any] = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "target_modules": "all-linear",
    "bias": "none",
}


def is_usual(adapter: Adapter) -> bool:
    """Whether it is LoRA by default but for whole numbers above 0, which needs no look."""
    usual = {"type": "LORA", **LORA_DEFAULTS}
    given = {"type": adapter.type, **adapter.fields}
    changed = {name: value for name, value in given.items() if value != usual.get(name)}
    return all(type(n) is int and n > 0 and type(usual.get(k)) is int for k, n in changed.items())


def variants_folder() -> Path:
    """``variants/`` of the checkout, or its copy inside an installed wheel."""
    inside = PACKAGE / "variants"
    return inside if inside.is_dir() else PACKAGE.parent / "variants"


def variant_names() -> list[str]:
    """Names of all registered variants, sorted."""
    return _stems(variants_folder())


def suite_names() -> list[str]:
    """Names of all built-in suites, sorted."""
    return _stems(SUITES)


def study_names() -> list[str]:
    """Names of all built-in studies, sorted."""
    return _stems(STUDIES)


def claim_names() -> list[str]:
    """Names of all built-in claims, sorted."""
    return _stems(CLAIMS)


def model_names() -> list[str]:
    """Names of all registered models, sorted."""
    return _stems(MODELS)


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.toml"))


OWN_FILE = "a TOML file of your own (name.toml)"
OWN_FILES = {"study": f"{OWN_FILE}, or the folder of a published study"}


def _locate(kind: str, name: str, folder: Path, where: object = None) -> Path:
    """A registered name, or the path of a TOML file of the user's own; ``where`` it stands."""
    if name.endswith(".toml"):
        if Path(name).is_file():
            return Path(name)
        hint = meant(Path(name))
        raise UserError(f"no such {kind} file: {name}", where=where, hint=hint)
    if not NAME.fullmatch(name) or not (folder / f"{name}.toml").is_file():
        unknown = UnknownName(kind, name, _stems(folder), where=where)
        unknown.expected = f"{unknown.expected}; or {OWN_FILES.get(kind, OWN_FILE)}"
        raise unknown
    return folder / f"{name}.toml"


def _is_part_of_model(path: Path) -> bool:
    """Whether a path is that of a file in a model folder."""
    if not is_folder(str(path.parent)):
        return False
    return {MODEL_CONFIG, path.name} <= {there.name for there in path.parent.iterdir()}


def _locate_model(name: str, where: object = None) -> Path:
    """As `_locate`, where a folder may have been meant."""
    try:
        return _locate("model", name, MODELS, where)
    except UnknownName as unknown:
        if _is_part_of_model(Path(name)):
            raise UserError(
                f"{name} is a file, where a model's folder is expected",
                where=where,
                hint=f"give the folder: {Path(name).parent}",
            ) from None
        unknown.expected = f"a folder (there is none of that name here), or {unknown.expected}"
        unknown.hint = meant(Path(name)) or unknown.hint
        raise


def load_model(name: str) -> Model:
    """Read one model: a registered name, a TOML file, a model folder, or ``org/name@commit``.

    Raises:
        UserError: there is no such model, or its files cannot be used.
        FetchError: the hub, or its cache, does not give the model's configuration.
    """
    if name not in model_names():
        if is_folder(name):
            return model_of_folder(name)
        if is_hub_id(name):
            return model_of_hub(name)
    path = _locate_model(name)
    model = parse(Model, {"name": path.stem, **read_toml(path)}, where=path)
    if isinstance(model.source, RandomSource | DrawnSource):
        _locate("model", model.source.tokenizer, MODELS, f"{path}, source.tokenizer")
    return model


def load_study(name: str, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read one study by name or path; ``overrides`` is a nested table laid over the file.

    With overrides it is another study, under a derived name.
    """
    path = _locate("study", name, STUDIES)
    data = merge({"name": path.stem, **read_toml(path)}, with_nulls(Study, overrides or {}))
    if overrides:
        data["name"] = with_changes(path.stem, changes_of(overrides))
    return parse(Study, data, where=_blame(path, overrides))


def load_claim(name: str) -> Claim:
    """Read one claim by name or path."""
    path = _locate("claim", name, CLAIMS)
    return parse(Claim, {"name": path.stem, **read_toml(path)}, where=path)


def load_suite(name: str, overrides: Mapping[str, Any] | None = None) -> Suite:
    """Read one suite by name or path; ``overrides`` is a nested table laid over the file.

    Overrides other than seeds make another protocol, so the suite gets a derived name such as
    ``quick@2ab025``: its runs and reports stay apart.
    """
    path = _locate("suite", name, SUITES)
    given = with_nulls(Suite, overrides or {})
    data = merge({"name": path.stem, **read_toml(path)}, given)
    data["name"] = suite_name(path.stem, overrides or {})
    where = _blame(path, overrides)
    suite = parse(Suite, data, where=where)
    if not (is_folder(suite.model) or is_hub_id(suite.model)):
        _locate_model(suite.model, f"{where}, model")
    # A variant is read with these below its own: a mistake in them would be blamed on its file.
    parse(SuiteProtocol, {"training": suite.training, "precision": suite.precision}, where=where)
    return suite


def variant_path(name: str) -> Path:
    """The file of a variant by name or path; PEFT's own file may be named by its folder."""
    found = peft_file(name)
    if found is not None:
        return found
    return _locate("variant", name, variants_folder())


def load_variant(name: str, suite: Suite, overrides: Mapping[str, Any] | None = None) -> Variant:
    """Read one variant under a suite's protocol.

    Later layers win: built-in defaults, the suite's ``[training]`` and ``[precision]``, the
    variant's file, ``overrides`` (from ``--set``). With overrides the variant gets a derived name,
    such as ``qlora_nf4+adapter.r=32``.
    """
    path = variant_path(name)
    if path.name == CONFIG:
        called, written = read_peft_variant(path)
    else:
        called, written = path.stem, read_toml(path)
    return build_variant(called, written, suite, overrides, where=path)


def build_variant(
    name: str,
    written: Mapping[str, Any],
    suite: Suite,
    overrides: Mapping[str, Any] | None = None,
    *,
    where: object,
) -> Variant:
    """Resolve a variant from what its author wrote."""
    protocol = {"training": dict(suite.training), "precision": dict(suite.precision)}
    data = merge(merge({"name": name, **protocol}, written), with_nulls(Variant, overrides or {}))
    if overrides:
        data["name"] = with_changes(name, changes_of(overrides))
    if data.get("method", "adapter") == "adapter":
        adapter = data.get("adapter", {})
        if isinstance(adapter, dict) and adapter.get("type", "LORA") == "LORA":
            data["adapter"] = {"type": "LORA", **LORA_DEFAULTS, **adapter}
    blame = _blame(where, overrides)
    made = parse(Variant, data, where=blame)
    resolved = resolve_quantization(made.quantization, blame)
    return made.model_copy(update={"quantization": resolved})


def _blame(where: object, overrides: Mapping[str, Any] | None) -> str:
    """Where a value came from: the file, and the command line if it had a say."""
    return f"{where}, with --set {' '.join(changes_of(overrides))}" if overrides else str(where)


def find(name: str, suite_name: str) -> Variant | Suite | Model | Study:
    """A variant (resolved under the suite), suite, model or study, by name or path."""
    own = read_toml(Path(name)) if name.endswith(".toml") and Path(name).is_file() else {}
    if name in suite_names() or "model" in own:
        return load_suite(name)
    if name in model_names() or "source" in own or is_folder(name) or is_hub_id(name):
        return load_model(name)
    if name in study_names() or "question" in own:
        return load_study(name)
    known = variant_names() + suite_names() + model_names() + study_names()
    if name not in known and not name.endswith(".toml"):
        raise UnknownName("variant, suite, model or study", name, known)
    return load_variant(name, load_suite(suite_name))
