"""Registry: the variants, suites and models that ship with the harness or that a user names."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any

from harness.errors import InvalidFile, UnknownName, UserError
from harness.spec.device import Device
from harness.spec.model import FolderSource, HubSource, Model, RandomSource
from harness.spec.own_model import is_folder, is_hub_id, model_of_folder, model_of_hub
from harness.spec.peft_files import CONFIG, peft_file, read_peft_variant
from harness.spec.plan import Plan, RunRequest, Substitution, make_plan
from harness.spec.schema import check_depth, parse, read_toml, with_nulls
from harness.spec.schemes import resolve_quantization
from harness.spec.study import Study
from harness.spec.suite import SEED_LIMIT, Suite
from harness.spec.variant import Protocol, Variant

PACKAGE = Path(__file__).parents[1]
MODELS = PACKAGE / "models"
SUITES = PACKAGE / "suites"
STUDIES = PACKAGE / "studies"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}")
LONGEST_NAME = 150
SHORT_DIGEST = 6  # digits: a person has dozens of protocols, not millions
MOST_SEEDS = 1000
LONGEST_SEED = 20
MOST_SECTIONS = 8  # of a key: no setting lies deeper

# alpha is the same at every rank: with the 1/r scale of LoRA the best learning rate then hardly
# depends on the rank (Schulman et al., "LoRA Without Regret", 2025).
LORA_DEFAULTS: dict[str, Any] = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "target_modules": "all-linear",
    "bias": "none",
}

VARIANT_SECTIONS = ("method", "quantization", "precision", "adapter", "training")
SUITE_SECTIONS = ("model", "corpus", "budget", "score", "seeds", "order", "order_seed")
PROTOCOL_SECTIONS = ("training", "precision")  # the suite's, for every variant alike


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


def model_names() -> list[str]:
    """Names of all registered models, sorted."""
    return _stems(MODELS)


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.toml"))


def _locate(kind: str, name: str, folder: Path, where: object = None) -> Path:
    """A registered name, or the path of a TOML file of the user's own; ``where`` it stands."""
    if name.endswith(".toml"):
        if Path(name).is_file():
            return Path(name)
        raise UserError(f"no such {kind} file: {name}", where=where)
    if not NAME.fullmatch(name) or not (folder / f"{name}.toml").is_file():
        raise UnknownName(kind, name, _stems(folder), where=where)
    return folder / f"{name}.toml"


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
    path = _locate("model", name, MODELS)
    model = parse(Model, {"name": path.stem, **read_toml(path)}, where=path)
    if isinstance(model.source, RandomSource):
        _locate("model", model.source.tokenizer, MODELS, f"{path}, source.tokenizer")
    return model


def load_study(name: str, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read one study by name or path; ``overrides`` is a nested table laid over the file.

    With overrides it is another study, under a derived name.
    """
    path = _locate("study", name, STUDIES)
    data = merge({"name": path.stem, **read_toml(path)}, with_nulls(Study, overrides or {}))
    if overrides:
        data["name"] = _derived_name(path.stem, _flatten(overrides))
    return parse(Study, data, where=_blame(path, overrides))


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
        _locate("model", suite.model, MODELS, f"{where}, model")
    # A variant is read with these below its own: a mistake in them would be blamed on its file.
    parse(Protocol, {"training": suite.training, "precision": suite.precision}, where=where)
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
        data["name"] = _derived_name(name, _flatten(overrides))
    if data.get("method", "adapter") == "adapter":
        adapter = data.get("adapter", {})
        if isinstance(adapter, dict) and adapter.get("type", "LORA") == "LORA":
            data["adapter"] = {"type": "LORA", **LORA_DEFAULTS, **adapter}
    blame = _blame(where, overrides)
    made = parse(Variant, data, where=blame)
    resolved = resolve_quantization(made.quantization, blame)
    return made.model_copy(update={"quantization": resolved})


def derived_name(name: str, overrides: Mapping[str, Any]) -> str:
    """The name of a variant or study with ``overrides`` laid over its file."""
    return _derived_name(_stem(name), _flatten(overrides)) if overrides else _stem(name)


def suite_name(name: str, overrides: Mapping[str, Any]) -> str:
    """The name of a suite with ``overrides``: a short digest stands for what was changed.

    A path counts by its last part, so that the same data elsewhere have the same name.
    """
    stem, changes = _stem(name), _without_seeds(overrides)
    if not changes:
        return stem
    text = json.dumps(_by_last_part(changes), sort_keys=True, default=str)
    return f"{stem}@{hashlib.sha256(text.encode()).hexdigest()[:SHORT_DIGEST]}"


def long_suite_name(name: str, overrides: Mapping[str, Any]) -> str:
    """The name that older harnesses gave a suite with ``overrides``, to find its runs."""
    changes = _flatten(_without_seeds(overrides))
    return _derived_name(_stem(name), changes) if changes else _stem(name)


def _without_seeds(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Other seeds are not another protocol."""
    return {key: value for key, value in overrides.items() if key != "seeds"}


def _by_last_part(value: Any) -> Any:
    if isinstance(value, str):
        return Path(value).name
    if isinstance(value, Mapping):
        return {key: _by_last_part(inner) for key, inner in value.items()}
    return [_by_last_part(inner) for inner in value] if isinstance(value, list) else value


def _stem(name: str) -> str:
    return Path(name).stem if name.endswith(".toml") else name


def _derived_name(name: str, changes: list[str]) -> str:
    """``name`` and what was changed; past the length of a folder's name, a digest of it."""
    derived = "+".join([name, *changes])
    if len(derived) <= LONGEST_NAME:
        return derived
    digest = hashlib.sha256(derived.encode()).hexdigest()[:12]
    return f"{derived[: LONGEST_NAME - 13]}+{digest}"


def _blame(where: object, overrides: Mapping[str, Any] | None) -> str:
    """Where a value came from: the file, and the command line if it had a say."""
    return f"{where}, with --set {' '.join(_flatten(overrides))}" if overrides else str(where)


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``under`` with ``over`` laid on it, key by key, nested tables too."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _flatten(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key, value in sorted(table.items()):
        if isinstance(value, Mapping):
            lines += _flatten(value, f"{prefix}{key}.")
        else:
            text = _shown(value)
            lines.append(prefix + key + "=" + re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-"))
    return lines


def _shown(value: Any) -> str:
    """A value inside a derived name: a path by its last part, a task by its name."""
    if isinstance(value, str):
        return Path(value).name
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        return "-".join(str(item.get("name", "")) for item in value)
    return json.dumps(value, default=str)


def parse_settings(settings: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split ``--set key=value`` options into overrides for the variant and for the suite.

    A value is read as TOML (``32``, ``true``, ``[0, 1]``) and otherwise taken as a string.
    TOML has no null: ``none`` unsets what may be left out, as in ``budget.steps=none`` (see
    :func:`harness.spec.schema.with_nulls`).
    ``training.…`` and ``precision.…`` make another variant, to be compared with the plain one;
    ``suite.training.…`` and ``suite.precision.…`` change the protocol of all variants.
    """
    variant: dict[str, Any] = {}
    suite: dict[str, Any] = {}
    for setting in settings:
        sections, value = _split_setting(setting)
        target = suite if changes_suite(setting) else variant
        if sections[0] == "suite":
            del sections[0]
        _lay(target, sections, value, setting)
    return variant, suite


def parse_setting(setting: str) -> dict[str, Any]:
    """One ``key=value`` as a nested table, whatever it is for."""
    table: dict[str, Any] = {}
    _lay(table, *_split_setting(setting), setting)
    return table


def _split_setting(setting: str) -> tuple[list[str], Any]:
    key, equals, text = setting.partition("=")
    sections = [part.strip() for part in key.split(".")]
    if not equals or not all(sections) or len(sections) > MOST_SECTIONS:
        raise UserError(f"--set {setting!r} is not KEY=VALUE", expected="for example adapter.r=32")
    return sections, _toml_value(text)


def _lay(target: dict[str, Any], sections: list[str], value: Any, setting: str) -> None:
    """Put a value at its place in a nested table."""
    for section in sections[:-1]:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise InvalidFile(f"{section} is a value, not a section", where=f"--set {setting}")
    target[sections[-1]] = value


def changes_suite(setting: str) -> bool:
    """Whether ``--set`` of this changes the suite, not the variant.

    Raises:
        UnknownName: neither has such a section.
    """
    sections = [part.strip() for part in setting.partition("=")[0].split(".")]
    first, where = sections[0], f"--set {setting}"
    if first != "suite":
        known = (*VARIANT_SECTIONS, *SUITE_SECTIONS)
        if first not in known:
            raise UnknownName("section", first, (*known, "suite"), where=where)
        return first in SUITE_SECTIONS
    own = (*SUITE_SECTIONS, *PROTOCOL_SECTIONS)
    second = sections[1] if len(sections) > 1 else ""
    if second not in own:
        raise UnknownName("section of a suite", second, own, where=where)
    return True


def _toml_value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except RecursionError:
        raise InvalidFile("nested too deeply", where=f"--set …={text:.40}…") from None
    check_depth(value, f"--set …={text:.40}…")
    # No setting is a date; what looks like one is text.
    return text if isinstance(value, date | time) else value


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read ``0``, ``0,1,2`` or ``0..4`` (both ends included); empty text gives no seeds.

    Raises:
        UserError: it is none of these, names too many, or one that is too large.
    """
    seeds: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, dots, last = part.partition("..")
        last = last if dots else first
        whole = first.isdecimal() and last.isdecimal()
        # Python refuses to read thousands of digits as a number.
        if whole and (len(last) > LONGEST_SEED or int(last) >= SEED_LIMIT):
            raise UserError(f"--seeds {text!r:.60}", expected=f"seeds below {SEED_LIMIT}")
        if not whole or len(first) > LONGEST_SEED or int(last) - int(first) >= MOST_SEEDS:
            raise UserError(f"--seeds {text!r}", expected="0 or 0,1,2 or 0..4")
        seeds += range(int(first), int(last) + 1)
    if text and not seeds:
        raise UserError(f"--seeds {text!r} names no seed", expected="0 or 0,1,2 or 0..4")
    return tuple(dict.fromkeys(seeds))


@dataclass(frozen=True)
class Request:
    """What a user asks to run or to plan, as typed; ``name`` is that of the suite as changed."""

    variants: tuple[str, ...]
    suite: str = "quick"
    settings: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    name: str = ""

    def of_run(self, variant: str) -> RunRequest:
        """The part that asks for the runs of one variant."""
        return RunRequest(
            variant=variant,
            suite=self.suite,
            settings=self.settings,
            tasks=self.tasks,
            name=self.name,
        )


def requested_suite(request: Request) -> Suite:
    """The suite with everything that ``request`` changes, and the name that it asks for."""
    overrides = suite_overrides(request)
    suite = load_suite(request.suite, overrides)
    if request.name:
        named = {**suite.model_dump(mode="json"), "name": request.name}
        suite = parse(Suite, named, where=f"--name {request.name}")
    return suite


def suite_overrides(request: Request) -> dict[str, Any]:
    """What ``request`` changes in its suite, as a nested table."""
    _, overrides = parse_settings(request.settings)
    if not request.tasks:
        return overrides
    suite = load_suite(request.suite, overrides)
    tasks = [task.model_dump(mode="json") for task in suite.score.tasks]
    tasks += [{"name": name} for name in request.tasks]
    return merge(overrides, {"score": {"tasks": tasks}})


def suite_changes(request: RunRequest) -> list[str]:
    """What a run changes in its suite's file, as typed."""
    typed = [setting for setting in request.settings if changes_suite(setting)]
    tasks = [f"task {name}" for name in request.tasks]
    return [setting.removeprefix("suite.") for setting in typed] + tasks


def resolve(request: Request, device: Device) -> list[Plan]:
    """Plans of all requested variants and seeds (the suite's, if none are given) on ``device``.

    ``request.tasks`` are scored in addition to the suite's own.
    """
    variant_overrides, _ = parse_settings(request.settings)
    suite = requested_suite(request)
    model = load_model(suite.model)
    chosen = [load_variant(name, suite, variant_overrides) for name in request.variants]
    made = [
        (name, make_plan(variant, suite, model, seed, device))
        for seed in (request.seeds or suite.seeds)
        for name, variant in zip(request.variants, chosen, strict=True)
    ]
    found = tuple(_own_substitutions(suite.model, model))
    return [
        plan.model_copy(
            update={
                "request": request.of_run(name),
                "substitutions": (*found, *plan.substitutions),
            }
        )
        for name, plan in made
    ]


def _own_substitutions(asked: str, model: Model) -> Iterator[Substitution]:
    """What a model that is named by its folder or hub id has not got itself."""
    own = isinstance(model.source, FolderSource | HubSource) and asked not in model_names()
    if own and not asked.endswith(".toml") and model.chat_template is not None:
        yield Substitution(
            key="model.chat_template",
            asked=None,
            used=model.chat_template,
            reason=f"the tokenizer of {model.name} brings no chat template",
        )


def descriptions(kind: str) -> list[tuple[str, str]]:
    """Name and description of every registered thing of one kind, sorted by name."""
    folders = {"suites": SUITES, "models": MODELS, "studies": STUDIES}
    folder = folders.get(kind) or variants_folder()
    return [
        (path.stem, str(read_toml(path).get("description", "")))
        for path in sorted(folder.glob("*.toml"))
    ]


def variants_markdown() -> str:
    """A table of all registered variants: base weights, what is trained, when to use it."""
    suite = load_suite("quick")
    lines = ["| variant | base weights | trained | what it is |", "|---|---|---|---|"]
    for name in variant_names():
        variant = load_variant(name, suite)
        base: str = variant.precision.compute
        if variant.quantization.type != "none":
            base = variant.quantization.label
        adapter = variant.adapter
        trained = {"none": "nothing", "full": "every weight"}.get(variant.method)
        if adapter is not None:
            rank = f", rank {adapter.fields['r']}" if "r" in adapter.fields else ""
            trained = f"{adapter.type}{rank}"
        lines.append(f"| `{name}` | {base} | {trained} | {variant.description} |")
    return "\n".join(lines)


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
