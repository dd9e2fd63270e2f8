"""The documentation site has all that its pages link, at the places where they look for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import LINK, ROOT, gather, links


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    gather(folder)
    return folder


def test_whatever_a_page_links_is_there(site: Path) -> None:
    """Ten links of README led nowhere, its first figure among them."""
    pages = sorted(site.rglob("*.md"))
    missing = [
        f"{page.relative_to(site)}: {path}"
        for page in pages
        for path in links(page.read_text(encoding="utf-8"), page)
        if not path.is_file()
    ]
    assert missing == []
    assert {"index.md", "studies.md", "reports/quick/report.md"} <= {
        page.relative_to(site).as_posix() for page in pages
    }
    figures = site / "reports" / "quick" / "figures"
    assert (figures / "quality-memory.png").is_file()
    assert (figures / "quality-memory.dark.svg").is_file(), "pictures are HTML"


def test_nothing_else_is_taken_along(site: Path) -> None:
    taken = {path.suffix for path in site.rglob("*") if path.is_file()}
    assert taken <= {".md", ".png", ".svg", ".toml"}


def test_every_page_in_the_navigation_is_gathered(site: Path) -> None:
    text = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"^  - .*: (\S+\.md)$", text, re.MULTILINE)
    assert len(named) > 10
    assert [name for name in named if not (site / name).is_file()] == []


def test_links_are_moved_with_their_pages_and_a_folder_is_its_name(tmp_path: Path) -> None:
    root, folder = tmp_path / "project", tmp_path / "site"
    (root / "docs").mkdir(parents=True)
    (root / "reports" / "one").mkdir(parents=True)
    (root / "README.md").write_text(
        "[how](docs/how.md#first) ![seen](reports/one/seen.png) [one](reports) "
        "[gone](no.md) [out](https://example.org) [here](#start)"
    )
    (root / "docs" / "how.md").write_text(
        '[start](../README.md) [page](../reports/one/page.md) <img src="../reports/one/seen.png">'
    )
    (root / "reports" / "one" / "seen.png").write_bytes(b"seen")
    (root / "reports" / "one" / "page.md").write_text("[how](../../docs/how.md)")
    gather(folder, root)
    assert (folder / "index.md").read_text() == (
        "[how](how.md#first) ![seen](reports/one/seen.png) one "
        "[gone](no.md) [out](https://example.org) [here](#start)"
    )
    assert (folder / "how.md").read_text() == (
        '[start](index.md) [page](reports/one/page.md) <img src="reports/one/seen.png">'
    )
    assert (folder / "reports/one/page.md").read_text() == "[how](../../how.md)"
    assert (folder / "reports/one/seen.png").read_bytes() == b"seen"


def test_a_link_in_brackets_is_found() -> None:
    assert LINK.findall("see [`a`](b.md#c), ![d](e.png)") == [
        ("", "`a`", "b.md", "#c"),
        ("!", "d", "e.png", ""),
    ]
