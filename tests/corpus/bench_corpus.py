"""Measure the corpus layer at OASST1's real size: python tests/corpus/bench_corpus.py TOKENIZER.

Writes 10,000 trees (real ones under new ids, each text marked with its replica so that no text
occurs twice), then times a first start and a start from the cache, each in a process of its own.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[3] / "shared" / "data" / "oasst"
TREES = 10_000


def replicate(node: dict[str, Any], tag: str, parent: str | None) -> dict[str, Any]:
    """A message and its replies under new ids."""
    name = f"{node['message_id']}-{tag}"
    return {
        **node,
        "message_id": name,
        "parent_id": parent,
        "text": f"{node['text']} ({tag})",
        "replies": [replicate(reply, tag, name) for reply in node["replies"]],
    }


def many_trees(count: int) -> Iterator[dict[str, Any]]:
    """``count`` trees in OASST's export layout."""
    with gzip.open(DATA / "oasst1-en-validation.trees.jsonl.gz", "rt", encoding="utf-8") as file:
        trees = [json.loads(line) for line in file]
    for number in range(count):
        copy, tree = divmod(number, len(trees))
        real = trees[tree]
        yield {
            **real,
            "message_tree_id": f"{real['message_tree_id']}-{copy}",
            "prompt": replicate(real["prompt"], str(copy), None),
        }


def child(tokenizer: str, source: str, policy: str, threshold: str) -> None:
    """Tokenise once and print what it took."""
    started = time.monotonic()
    from transformers import AutoTokenizer

    from harness.corpus.render import Renderer
    from harness.corpus.sequences import make_training_rows
    from harness.corpus.tokenised import tokenised_corpus
    from harness.spec.suite import CorpusSpec
    from harness.spec.variant import Training

    renderer = Renderer(AutoTokenizer.from_pretrained(tokenizer))
    loaded, used = time.monotonic(), time.process_time()
    spec = CorpusSpec.model_validate(
        {
            "source": source,
            "policy": policy,
            "on_leak": "drop",
            "near_duplicate_threshold": float(threshold) if threshold else None,
        }
    )
    found = tokenised_corpus(spec, renderer)
    done = time.monotonic()
    rows = make_training_rows(found.train, Training(sequence_length=2048, packing=True))
    packed = time.monotonic()
    numbers = {
        "import_and_tokenizer_seconds": round(loaded - started, 2),
        "corpus_seconds": round(done - loaded, 2),
        "packing_seconds": round(packed - done, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "train": len(found.train),
        "held_out": len(found.held_out),
        "tokens": sum(len(one.input_ids) for one in (*found.train, *found.held_out)),
        "fill_at_2048": round(rows.tokens / (len(rows.rows) * rows.sequence_length), 4),
        "read": found.corpus.result.funnel[0].model_dump(),
    }
    sys.stdout.write(json.dumps(numbers) + "\n")


def main() -> None:
    """Build the file, run the children."""
    tokenizer = sys.argv[1]
    policy = sys.argv[2] if len(sys.argv) > 2 else "best_path"
    threshold = sys.argv[3] if len(sys.argv) > 3 else ""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "many.trees.jsonl.gz"
        with gzip.open(source, "wt", encoding="utf-8", compresslevel=1) as file:
            for tree in many_trees(TREES):
                file.write(json.dumps(tree) + "\n")
        environment = {**os.environ, "FINETUNE_HARNESS_CACHE": str(Path(folder) / "cache")}
        for start in ("first", "cached"):
            arguments = [sys.executable, __file__, "--child", tokenizer, str(source)]
            done = subprocess.run(
                [*arguments, policy, threshold],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
            sys.stdout.write(f"{start}: {done.stdout}")


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(*sys.argv[2:])
    else:
        main()
