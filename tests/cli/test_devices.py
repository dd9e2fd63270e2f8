"""--devices and --gpus: what they set, what they hide, and what they refuse."""

from __future__ import annotations

import os

import pytest

from harness.cli.devices import VISIBLE, check_devices, with_devices
from harness.errors import UserError
from harness.spec.device import nth_visible, visible_gpus
from tests.planned import CPU, GPU, planned


def test_devices_are_a_setting_of_every_variant() -> None:
    assert with_devices(["a.b=1"], 2) == ["a.b=1", "training.devices=2"]
    assert with_devices(["a.b=1"], 1) == ["a.b=1"]
    assert with_devices(["a.b=1"]) == ["a.b=1"]


def test_chosen_gpus_are_counted_and_others_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,1,2,3")
    assert with_devices([], 0, "3, 1") == ["training.devices=2"]
    assert os.environ[VISIBLE] == "3,1"
    assert [nth_visible(os.environ[VISIBLE], rank) for rank in range(3)] == ["3", "1", None]


@pytest.mark.parametrize(
    ("settings", "devices", "gpus"),
    [
        ([], 3, "0,1"),
        ([], 0, "0,0"),
        ([], 0, ","),
        (["training.devices=4"], 2, ""),
        (["suite.training.devices=4"], 2, ""),
    ],
)
def test_contradictions_are_refused(settings: list[str], devices: int, gpus: str) -> None:
    with pytest.raises(UserError):
        with_devices(settings, devices, gpus)


def test_more_gpus_than_there_are_is_refused_before_anything_is_loaded() -> None:
    needed = len(visible_gpus()) + 2
    plan = planned(
        "lora_bf16", f"training.devices={needed}", f"budget.batch_size={needed}", device=GPU
    )
    with pytest.raises(UserError, match=f"{needed} devices were asked for"):
        check_devices([plan])
    check_devices([planned("lora_bf16", device=GPU)])
    check_devices([planned("lora_bf16", "training.devices=2", device=CPU)])
