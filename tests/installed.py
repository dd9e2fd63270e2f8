"""What an installed wheel must hold besides modules; called by the session ``wheel``."""

from __future__ import annotations

import sys
from pathlib import Path

import harness
from harness.spec import registry

ROOT = Path(__file__).parents[1]
PACKAGE = Path(harness.__file__).parent


def problems(site: Path) -> list[str]:
    """Everything that the checkout has and the wheel lacks."""
    if not PACKAGE.is_relative_to(site):
        return [f"harness was imported from {PACKAGE}, not from {site}"]
    checkout = ROOT / "harness"
    kept = [path for path in checkout.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    names = {path.relative_to(checkout).as_posix() for path in kept}
    names |= {f"variants/{path.name}" for path in (ROOT / "variants").glob("*.toml")}
    names.add("report/templates/statistics.md")
    missing = [f"missing: {name}" for name in sorted(names) if not (PACKAGE / name).is_file()]
    for variant in registry.variant_names():
        registry.load_variant(variant, registry.load_suite("quick"))
    if len(registry.variant_names()) != len(list((ROOT / "variants").glob("*.toml"))):
        missing.append("not every variant is listed")
    return missing


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    sys.exit("\n".join(wrong) if wrong else None)
