"""Code that lies beside a model's weights runs only when it is trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import InvalidFile
from harness.weights.load import load_base, load_tokenizer
from tests.runs.small_run import Small

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
Path({mark!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "of_its_own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def folder(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose class is defined in a Python file beside its weights."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody is there to ask"))
    found = tmp_path / "model"
    found.mkdir()
    for path in (small.folder / "weights").iterdir():
        (found / path.name).write_bytes(path.read_bytes())
    (found / "own.py").write_text(CODE.format(mark=str(tmp_path / "ran")))
    config = json.loads((found / "config.json").read_text())
    config |= {"model_type": "of_its_own", "architectures": ["OwnModel"]}
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForCausalLM": "own.OwnModel",
    }
    (found / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((found / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    tokenizer["tokenizer_class"] = "OwnTokenizer"
    (found / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return found


def test_it_does_not_run_by_itself(folder: Path, small: Small, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="trust_remote_code"):
        load_base(small.plan(), folder)
    with pytest.raises(InvalidFile, match="trust_remote_code"):
        load_tokenizer(folder)
    assert not (tmp_path / "ran").exists()


def test_it_runs_when_it_is_trusted(folder: Path, small: Small, tmp_path: Path) -> None:
    model = load_base(small.plan(), folder, trust_remote_code=True)
    assert type(model).__name__ == "OwnModel"
    assert (tmp_path / "ran").exists()
