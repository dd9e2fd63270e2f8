"""Listing: what is registered, with the descriptions that stand in the files."""

from __future__ import annotations

from harness.spec.registry import (
    MODELS,
    STUDIES,
    SUITES,
    load_suite,
    load_variant,
    variant_names,
    variants_folder,
)
from harness.spec.storage import read_toml


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
        if variant.precision.products != "compute":
            base += f", {variant.precision.products} products"
        adapter = variant.adapter
        trained = {"none": "nothing", "full": "every weight"}.get(variant.method)
        if adapter is not None:
            rank = f", rank {adapter.fields['r']}" if "r" in adapter.fields else ""
            trained = f"{adapter.type}{rank}"
        lines.append(f"| `{name}` | {base} | {trained} | {variant.description} |")
    return "\n".join(lines)
