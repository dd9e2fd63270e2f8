"""Scores: a score, a bundled task and a task of one's own, as somebody would add them."""

from __future__ import annotations

import json
from pathlib import Path

SCORE = '''
"""Reply length: how long people's held-out replies are; it needs no model."""

import numpy as np

from harness.score.items import Items, Metric
from harness.score.subject import Scores, Taking

LENGTH = Metric("reply_length", "characters", "characters", "higher")


def reply_length(taking: Taking) -> Scores:
    held_out = taking.subject.corpus.held_out
    names = [conversation.id for conversation in held_out]
    trees = [conversation.tree_id for conversation in held_out]
    sizes = np.array([float(len(c.messages[-1].text)) for c in held_out])
    items = Items(names, trees, sizes, np.ones(len(sizes)))
    return Scores((taking.place.write(LENGTH, items, asked={"turn": "last"}),))
'''


BUNDLED = """
task: reply_likelihood
custom_dataset: !function documents.read
dataset_kwargs:
  kind: replies
test_split: test
output_type: loglikelihood
doc_to_text: prompt
doc_to_target: reply
target_delimiter: ""
num_fewshot: 0
metric_list:
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
metadata:
  version: 1.0
"""
OWN = """
task: colours
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: label
num_fewshot: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def write_own(folder: Path, rows: int = 3) -> Path:
    """A task file and its data."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "colours.jsonl"
    row = {"question": "The sky is", "choices": ["blue", "green"], "label": 0}
    data.write_text("".join(json.dumps(row) + "\n" for _ in range(rows)))
    task = folder / "colours.yaml"
    task.write_text(OWN.format(data=data))
    return task
