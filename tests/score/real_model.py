"""What the parity and bench scripts share: the real model, the data folder, one task's requests."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "lm_eval"


def parser(description: str) -> argparse.ArgumentParser:
    """Options of both scripts."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--model", type=Path, help="a transformers folder; else SmolLM2 is fetched")
    found.add_argument("--data", type=Path, default=DATA, help="folder that mirrors data sets")
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return found


def load(options: argparse.Namespace) -> tuple[Any, Any, Path]:
    """Model (float32 on a CPU, bfloat16 on a GPU), tokenizer, and the folder they came from."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.records.events import Silence
    from harness.spec.registry import load_model
    from harness.weights.fetch import fetch

    torch.set_num_threads(options.threads)
    folder = options.model or fetch(load_model("smollm2_135m_instruct"), Silence())
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(options.device).eval()
    return model, AutoTokenizer.from_pretrained(folder), Path(folder)
