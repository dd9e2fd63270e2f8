"""The table of architectures in the documentation, made by the checks themselves.

``python -m tests.architecture_table docs/architectures.md``; called by the session
``architectures``.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from harness.records.events import Silence
from harness.train.path import train
from tests.architectures import ARCHITECTURES, model_toml, save_architecture, tiny_causal
from tests.planned import planned
from tests.score import test_score_architectures as scores
from tests.train import test_architectures as training
from tests.train.tiny import tiny_job, tiny_plan, tiny_rows
from tests.weights import test_architectures_census as census

Check = Callable[[str], str]
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "lm-eval")
HEAD = """# Architectures

Made by `nox -s architectures` from tiny random models of every architecture that the tests build
({count} of them; `tests/architectures.py` has their configurations), on a CPU. Each cell is a check
that ran, not a promise.

- **plain**: the first loss on the plain training path, with LoRA and in full, is that of
  transformers' own forward pass to 1e-6 in float32.
- **fast**: every loss of three steps on the fast path is the plain path's to 1e-4; or planning puts
  the plain path in its place and says why.
- **scores**: `engine = "fast"` gives the log-likelihoods and greedy flags of lm-eval's own backend,
  item by item.
- **4 bits**: the base loaded in NF4 is the planned one, to the byte.
- **plain PEFT**: `PeftModel.from_pretrained` of the saved adapter, on the base, gives the same
  logits.

"no" is followed by what the harness says when it refuses.

| architecture | {columns} |
|{rule}|
"""


def plain(name: str) -> str:
    """The loss that is trained is the model's own."""
    for method in ("adapter", "full"):
        training.test_the_first_loss_is_that_of_transformers_own_forward_pass(name, method)
    return "yes"


def fast(name: str) -> str:
    """Equal losses on both paths, or a substitution."""
    with tempfile.TemporaryDirectory() as folder:
        path = model_toml(name, Path(folder) / f"{name}.toml", Path(folder))
        modules = training.MIXERS.get(name)
        more = [f"adapter.target_modules={modules}"] if modules else []
        plan = planned("lora_bf16", f"model={path}", "training.speed=fast", *more)
    for item in plan.substitutions:
        if item.key == "training.speed":
            why = item.reason.removeprefix("the fast path does not take ").partition("; ")[0]
            return f"plain instead: {why}"
    found = []
    for speed in ("plain", "fast"):
        job = tiny_job(training.adapted(name), tiny_rows(), tiny_plan(steps=3, speed=speed))
        found.append([point.loss for point in train(job, Silence()).losses])
    torch.testing.assert_close(*(torch.tensor(losses) for losses in found), rtol=1e-4, atol=1e-4)
    return "yes"


def scored(name: str) -> str:
    """Scores are lm-eval's, item by item."""
    scores.test_the_answers_are_those_of_lm_eval_s_own_backend(name, scores.make_words())
    return "yes"


def four_bits(name: str) -> str:
    """What is planned is what is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        census.test_a_reference_is_loaded_as_planned(name, "base_nf4", Path(folder))
    return "yes"


def plain_peft(name: str) -> str:
    """PEFT alone reads the adapter."""
    model: Any = training.adapted(name).eval()
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1, generator=torch.manual_seed(1))
        save_architecture(name, Path(folder))
        model.save_pretrained(folder)
        again = PeftModel.from_pretrained(tiny_causal(name), folder).eval()
        ids = torch.arange(3, 43)[None]
        bare = tiny_causal(name)(input_ids=ids, use_cache=False).logits
        mine, theirs = (one(input_ids=ids, use_cache=False).logits for one in (model, again))
    assert torch.equal(mine, theirs)
    assert not torch.equal(mine, bare)
    return "yes"


CHECKS: dict[str, Check] = {
    "plain": plain,
    "fast": fast,
    "scores": scored,
    "4 bits": four_bits,
    "plain PEFT": plain_peft,
}


def cell(check: Check, name: str) -> str:
    """What a check found, fit for a table."""
    try:
        found = check(name)
    except Exception as error:  # noqa: BLE001 - whatever fails is named in the table
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        found = f"no: {type(error).__name__}: {said}"[:160]
    return found.replace("|", "\\|")


def page() -> str:
    """The whole page."""
    rule = "|".join("---" for _ in range(len(CHECKS) + 1))
    lines = [HEAD.format(count=len(ARCHITECTURES), columns=" | ".join(CHECKS), rule=rule).rstrip()]
    for name in sorted(ARCHITECTURES):
        cells = [cell(check, name) for check in CHECKS.values()]
        print(name, *cells, sep=" | ", flush=True)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return "\n".join([*lines, "", f"Versions: {versions}.", ""])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
