"""Plugins: what can be added by name, from the harness's own table or by an installed package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from harness.errors import UnknownName, UserError


@dataclass(frozen=True)
class Plugins:
    """All objects of one kind by name, each imported when it is asked for.

    An installed package adds one by an entry point of ``group``::

        [project.entry-points."finetune_harness.schemes"]
        my_scheme = "my_package.my_module:MY_SCHEME"

    ``kind`` is what messages call such an object. ``built_in`` is the registration of the
    harness's own, in the notation of entry points; a package cannot take one of its names.
    """

    kind: str
    group: str
    built_in: Mapping[str, str]

    def outside(self) -> dict[str, EntryPoint]:
        """Those of installed packages, sorted by name."""
        found = _entry_points(self.group, tuple(sys.path))
        return {name: found[name] for name in sorted(found) if name not in self.built_in}

    def names(self) -> list[str]:
        """Names of all, sorted."""
        return sorted({*self.built_in, *self.outside()})

    def load(self, name: str, where: object = None) -> Any:
        """The object of that name.

        Raises:
            UnknownName: there is none; ``where`` says where the name was written.
            UserError: the package that brings it cannot be imported.
        """
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            return getattr(import_module(module), attribute)
        outside = self.outside()
        if name not in outside:
            raise UnknownName(self.kind, name, self.names(), where=where)
        try:
            return outside[name].load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"the package that brings the {self.kind} {name} cannot be imported: {error}",
                where=f"entry point {name} = {outside[name].value} of group {self.group}",
                hint="repair or remove that package",
            ) from error


@cache
def _entry_points(group: str, _path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Looking through all installed packages takes a while; they change with the path only."""
    return {point.name: point for point in entry_points(group=group)}
