"""Things that are found by name: the harness's own, and those of installed packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UnknownName, UserError
from harness.spec.plugins import Plugins

GROUP = "finetune_harness.tests_only"
OWN = {"join": "os.path:join", "gone": "os.path:no_such_function"}


@pytest.fixture
def plugins() -> Plugins:
    return Plugins("trick", GROUP, OWN)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with entry points of the group."""
    info = tmp_path / "tricks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tricks\nVersion: 1.0\n")
    points = ("split = os.path:split", "join = os.path:basename", "broken = no_such_module:x")
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *points, ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_without_packages_there_are_the_harness_s_own(plugins: Plugins) -> None:
    assert plugins.names() == ["gone", "join"]
    assert plugins.outside() == {}


def test_its_own_are_imported_when_they_are_asked_for(plugins: Plugins) -> None:
    import os.path

    assert plugins.load("join") is os.path.join
    with pytest.raises(AttributeError):  # a defect of the harness, and no mistake of the user's
        plugins.load("gone")


@pytest.mark.usefixtures("site")
def test_an_installed_package_adds_but_cannot_replace(plugins: Plugins) -> None:
    import os.path

    assert plugins.names() == ["broken", "gone", "join", "split"]
    assert plugins.load("split") is os.path.split
    assert plugins.load("join") is os.path.join
    assert list(plugins.outside()) == ["broken", "split"]


@pytest.mark.usefixtures("site")
def test_a_broken_package_concerns_only_who_asks_for_it(plugins: Plugins) -> None:
    with pytest.raises(UserError, match="the trick broken cannot be imported") as caught:
        plugins.load("broken")
    assert f"broken = no_such_module:x of group {GROUP}" in str(caught.value)


def test_an_unknown_name_says_where_it_was_written_and_what_there_is(plugins: Plugins) -> None:
    with pytest.raises(UnknownName, match="unknown trick 'jion'") as caught:
        plugins.load("jion", "--trick")
    assert "did you mean join" in str(caught.value)
    assert "--trick" in str(caught.value)
