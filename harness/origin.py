"""Origin: what makes a value besides its inputs: the harness's own code, packages, settings."""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).parent
# The rooms that make results; the others plan, supervise, show and report them.
RESULT_ROOMS = ("train", "score", "forms", "corpus", "weights", "quantize")
# Texts for people and compiled copies decide no value.
NO_SOURCE = (".md", ".pyc")
# Settings of the libraries that compute: instruction sets, number formats, threads, algorithms.
SETTING = re.compile(
    r"(ATEN|BLIS|BNB|BITSANDBYTES|CUBLAS|CUBLASLT|CUDA|CUDNN|DNNL|GOMP|KMP|MKL|NCCL|NVIDIA|OMP|ONEDNN"
    r"|OPENBLAS|PYTORCH|TORCH|TRITON|VECLIB|XNNPACK)_[A-Z0-9_]+"
    r"|ACCELERATE_MIXED_PRECISION|GLIBC_TUNABLES|GOTO_NUM_THREADS|LD_PRELOAD|NPY_[A-Z_]+"
    r"|(TORCHAO|TORCHDYNAMO|TORCHINDUCTOR)_[A-Z0-9_]+|USE_HUB_KERNELS|DISABLE_(ADDMM|KERNEL)_[A-Z_]+"
    r"|PYTHONHASHSEED|TOKENIZERS_PARALLELISM"
)
# What such names also say of: where things lie, what is printed, how much is kept in memory, how
# threads wait.
NO_SETTING = re.compile(
    r"(?!BNB_CUDA_VERSION).*(HOME|PATH|DIR|FOLDER|LOGS?|VERSION|TOKEN|SECRET|PASSWORD|_KEY|VISIBLE_DEVICES|REQUIRE_\w+"
    r"|DRIVER_CAPABILITIES|PRODUCT_NAME|CACHE_CAPACITY|SPINCOUNT)"
)
PLAIN = re.compile(r"[A-Za-z0-9_.,:;=+ -]{0,120}")


@cache
def sources_digest(*roots: str) -> str:
    """SHA-256 (hex) of the harness's own files that make a value.

    A root is a room (``"score"``: every file in it, for tasks and templates count too) or one
    module (``"weights/convert.py"``). Modules that these import, wherever they lie, are taken in.
    """
    names = {
        name for name in _sources() for root in roots if name == root or name.startswith(f"{root}/")
    }
    waiting = list(names)
    while waiting:
        found = _imports(waiting.pop()) - names
        names |= found
        waiting += found
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name} {hashlib.sha256(_sources()[name]).hexdigest()}\n".encode())
    return digest.hexdigest()


@cache
def _sources() -> dict[str, bytes]:
    """Every file of the package, read once, so that a later edit is not taken for what runs."""
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_bytes()
        for path in sorted(PACKAGE.rglob("*"))
        if path.suffix not in NO_SOURCE and path.is_file()
    }


@cache
def _imports(name: str) -> frozenset[str]:
    """Files of the package that the module ``name`` imports when it runs, wherever it does so."""
    if not name.endswith(".py"):
        return frozenset()
    modules: list[str] = []
    waiting: list[ast.AST] = [ast.parse(_sources()[name])]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.If) and _for_types_only(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
    return frozenset(file for module in modules for file in _files(module))


def _for_types_only(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _files(module: str) -> list[str]:
    """The file of ``module``, if it is one of the package's own."""
    package, _, inner = module.partition(".")
    if package != PACKAGE.name or not inner:
        return []
    path = inner.replace(".", "/")
    return [name for name in (f"{path}.py", f"{path}/__init__.py") if name in _sources()]


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def settings() -> dict[str, str]:
    """Environment variables that change results or costs, as this process found them.

    Only the first call looks, since libraries set some of their own later. A value that could be
    a path is replaced by a digest of it: whether two are alike is all that matters.
    """
    return settings_of(os.environ)


def settings_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of its variables that change results or costs; see `settings`."""
    names = [n for n in environment if SETTING.fullmatch(n) and not NO_SETTING.fullmatch(n)]
    return {name: _shown(environment[name]) for name in sorted(names)}


def _shown(value: str) -> str:
    if PLAIN.fullmatch(value):
        return value
    return f"sha256:{hashlib.sha256(value.encode(errors='surrogateescape')).hexdigest()[:16]}"
