"""Methods: what a PEFT type needs of a plan and of training, beyond its own fields."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from harness.spec.variant import Adapter, Quantization


@dataclass(frozen=True)
class Needs:
    """What the harness has to do, or may not do, for adapters of one kind.

    A type that is not in :data:`TYPES` needs nothing: it is trained through PEFT's own forward
    pass, saved and scored like any other.
    """

    virtual_tokens: str | None = None
    """Field that says how many positions the soft prompt takes."""
    holds_cache: bool = False
    """Its prompt is a cache of keys and values, which gradient checkpointing throws away."""
    steps: str | None = None
    """Field that takes the number of optimizer steps."""
    allocates: bool = False
    """Asks to be told of every optimizer step (``update_and_allocate``)."""
    adds_in_place: bool = False
    """Writes into what the base layer gives, which autograd forbids for some quantized layers."""
    draws: bool = False
    """Draws random numbers in every forward pass of training."""
    sees_all: bool = False
    """What it adds to a token depends on every token of the pass: later, padded, of other rows."""
    fixed: str | None = None
    """Part of the names of weights that are never trained; PEFT trains them on a 16-bit base."""
    refused: str | None = None
    """Why no run can train it."""


SOFT_PROMPT = Needs(virtual_tokens="num_virtual_tokens")
PROMPT_CACHE = Needs(virtual_tokens="num_virtual_tokens", holds_cache=True)

TYPES: dict[str, Needs] = {
    "PROMPT_TUNING": SOFT_PROMPT,
    "P_TUNING": SOFT_PROMPT,
    "PREFIX_TUNING": PROMPT_CACHE,
    "CARTRIDGE": PROMPT_CACHE,
    "ADALORA": Needs(steps="total_step", allocates=True, fixed=".ranknum."),
    "GRALORA": Needs(adds_in_place=True),
    "PVERA": Needs(draws=True),
    "C3A": Needs(adds_in_place=True),
    "LILY": Needs(sees_all=True),  # its router's mean
    "MULTITASK_PROMPT_TUNING": Needs(refused="it tells tasks apart, and a run has one task"),
    "POLY": Needs(refused="it tells tasks apart, and a run has one task"),
    "XLORA": Needs(refused="it mixes adapters that other runs have trained"),
    "CPT": Needs(refused="its loss also covers the tokens of its context"),
    "SHADOW": Needs(refused="its second loss needs the labels in the model's forward pass"),
}

# Fields of a type that ask for what no path does, and why that is.
REFUSED_FIELDS: dict[tuple[str, str], str] = {
    ("LORA", "alora_invocation_tokens"): "scoring does not look for its invocation tokens",
    ("LORA", "arrow_config"): "it routes between adapters that other runs have trained",
    ("LORA", "layer_replication"): "it makes another model, with more layers",
    ("LORA", "megatron_config"): "it needs Megatron's parallel layers",
    ("LORA", "monteclora_config"): "it adds a term to the loss, which no training path does",
    ("LORA", "kasa_config"): "it adds a term to the loss, which no training path does",
    ("LORA", "use_bdlora"): "it needs a server that splits the adapter over GPUs",
    ("ADAMSS", "use_asa"): "its allocation of subspaces is not kept in checkpoints",
}

# Initialisations of LoRA that write into the base weights, and those that read training rows.
CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
READS_ROWS = ("eva", "corda", "lora_ga")
# Those that take the adapter's start out of the base: without it the trained adapter is of no use.
TAKES_START_OUT = ("pissa", "olora", "corda", "lora_ga")


# Types whose layers in PEFT compute with the base's weight itself, which a scheme packs.
READS_BASE = (
    "ADAMSS",
    "DEFT",
    "DELORA",
    "FROD",
    "GLORA",
    "HRA",
    "LOHA",
    "LOKR",
    "OSF",
    "PEANUT",
    "PSOFT",
    "SUPERTUNING",
    "TINYLORA",
    "UNILORA",
)
STARTS_FROM_BASE = ("mica", "orthogonal")  # initialisations of LoRA, likewise
# Other schemes than these cannot carry a type: PEFT has no code for their weights, or it fails.
FOUR_BITS, BITSANDBYTES = ("nf4", "fp4"), ("nf4", "fp4", "int8")
GROUPED = (*BITSANDBYTES, "int4", "hqq", "nvfp4", "mxfp4")
CARRIED: dict[str, tuple[str, ...]] = {
    "HIRA": BITSANDBYTES,
    "SHIRA": BITSANDBYTES,
    "BOFT": GROUPED,
    "MISS": GROUPED,
    "OFT": GROUPED,
    "VERA": GROUPED,
}


def needs_of(adapter: Adapter | None) -> Needs:
    """What ``adapter`` needs."""
    return Needs() if adapter is None else TYPES.get(adapter.type, Needs())


def virtual_tokens(adapter: Adapter | None) -> int:
    """Positions that the soft prompt of ``adapter`` takes from the model's context."""
    name = needs_of(adapter).virtual_tokens
    found: Any = adapter.fields.get(name) if adapter is not None and name is not None else None
    return found if type(found) is int else 0


def initialisation(adapter: Adapter | None) -> str:
    """The name that ``init_lora_weights`` gives, or "" (PEFT's default, or another type)."""
    named = None if adapter is None else adapter.fields.get("init_lora_weights")
    return named.lower() if isinstance(named, str) else ""


def reads_rows(adapter: Adapter | None) -> bool:
    """Whether the adapter's start is made from training rows."""
    return initialisation(adapter) in READS_ROWS


def shares_ranks(adapter: Adapter | None) -> bool:
    """Whether training rows decide the rank of each layer: EVA's, unless its rho is 1."""
    if adapter is None or initialisation(adapter) != "eva":
        return False
    settings = adapter.fields.get("eva_config") or {}
    return not isinstance(settings, dict) or settings.get("rho", 2.0) != 1.0


def plainly_initialised(adapter: Adapter) -> Adapter:
    """``adapter`` with PEFT's default initialisation in place of one that reads values."""
    if not initialisation(adapter).startswith((*CHANGES_BASE, *READS_ROWS)):
        return adapter
    fields = {name: value for name, value in adapter.fields.items() if name != "init_lora_weights"}
    return Adapter(type=adapter.type, **fields)


# Packages that optimizers come from, besides torch, transformers, PEFT and bitsandbytes.
PACKAGES = {"galore": "galore_torch", "apollo": "apollo_torch"}


def optimizer_refusal(optimizer: str, adapter: Adapter | None) -> str | None:
    """Why ``optimizer`` does not train ``adapter`` (None: the whole model), or None if it does."""
    package = PACKAGES.get(optimizer)
    if package is not None:
        if adapter is not None:
            return "it projects the gradients of whole matrices, and an adapter's are small"
        missing = f"it needs the package {package} (the extra optimizers)"
        return None if find_spec(package) else missing
    if optimizer not in ("loraplus", "lorafa"):
        return None
    if adapter is None or adapter.type != "LORA":
        return "it tells the two matrices of LoRA apart"
    if optimizer == "lorafa" and (
        adapter.fields.get("use_dora") or adapter.fields.get("lora_bias")
    ):
        return "it knows LoRA's two matrices and nothing beside them"
    return None


def held_still(optimizer: str) -> str | None:
    """What is in the names of adapter weights that ``optimizer`` leaves as they are."""
    return "lora_A" if optimizer == "lorafa" else None


def _loftq_refusal(adapter: Adapter, device: str) -> str | None:
    if not _scales_by_one(adapter):
        return (
            "init_lora_weights = 'loftq' makes up for rounding at a scale of 1 alone: set "
            f"lora_alpha = r ({adapter.fields.get('r')}), without use_rslora and patterns"
        )
    if device == "cpu":
        return "init_lora_weights = 'loftq' needs a GPU: PEFT rounds the base there"
    return None


def _scales_by_one(adapter: Adapter) -> bool:
    """Whether the product of LoRA's two matrices is added as it is."""
    fields = adapter.fields
    if fields.get("rank_pattern") or fields.get("alpha_pattern"):
        return False
    rank, alpha = fields.get("r"), fields.get("lora_alpha")  # by default they are equal
    return alpha == rank and (not fields.get("use_rslora") or rank == 1)


def _unreadable_base(adapter: Adapter, quantization: Quantization) -> str | None:
    named = initialisation(adapter)
    what, schemes = adapter.type, CARRIED.get(adapter.type)
    if adapter.type == "LORA" and adapter.fields.get("use_dora"):
        what, schemes = "LORA with use_dora", FOUR_BITS
    if schemes is not None and quantization.type not in schemes:
        return f"{what} takes quantized weights of the schemes {', '.join(schemes)} alone"
    if named.startswith(STARTS_FROM_BASE):
        what = f"init_lora_weights = {named!r}"
    elif adapter.type not in READS_BASE:
        return None
    return f"{what} reads the base's weights as they are, and a quantized base packs them"


def refusal(adapter: Adapter, quantization: Quantization, device: str = "cuda") -> str | None:
    """Why no run can train ``adapter`` on such a base and kind of device, or None."""
    reason = needs_of(adapter).refused
    if reason is not None:
        return f"{adapter.type} is not trained: {reason}"
    for (kind, name), why in REFUSED_FIELDS.items():
        if kind == adapter.type and adapter.fields.get(name) not in (None, False, "none"):
            return f"{adapter.type} with {name} is not trained: {why}"
    named = initialisation(adapter)
    if quantization.type != "none":
        reason = _unreadable_base(adapter, quantization)
        if reason is not None:
            return reason
    if quantization.type != "none" and named.startswith(CHANGES_BASE):
        return (
            f"init_lora_weights = {named!r} writes into the base weights, and those of a "
            f"{quantization.label} base would be quantized a second time"
        )
    return _loftq_refusal(adapter, device) if named.startswith("loftq") else None
