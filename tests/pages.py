"""Pages: gathers what the documentation site is built from, `python -m tests.pages FOLDER`."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
TAG = re.compile(r'\b(src|srcset|href)="([^"\s#]+)"')  # of a picture, mostly


def gather(folder: Path, root: Path = ROOT) -> None:
    """Write the pages of the top level and of docs/ to ``folder``, with all that they link.

    A linked file of the repository is taken along, and what it links too. A link to a folder,
    for which a site has no page, becomes its text. One to what is not there is left as it is, for
    mkdocs to complain about.
    """
    waiting = [*sorted(root.glob("docs/*.md")), *sorted(root.glob("*.md"))]
    known = set(waiting)
    while waiting:
        source = waiting.pop()
        target = folder / place(source, root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix != ".md":
            shutil.copyfile(source, target)
            continue
        text = source.read_text(encoding="utf-8")
        target.write_text(rewritten(text, source, root), encoding="utf-8")
        linked = {path for path in links(text, source) if path.is_file()} - known
        known |= linked
        waiting += sorted(linked)


def links(text: str, source: Path) -> list[Path]:
    """Files and folders that a page links by relative paths."""
    named = [link for _, _, link, _ in LINK.findall(text)]
    named += [link for _, link in TAG.findall(text)]
    return [(source.parent / link).resolve() for link in named if ":" not in link]


def place(source: Path, root: Path) -> Path:
    """Where a file of the repository lies in the site."""
    path = source.relative_to(root)
    if path.name == "README.md" and path.parent == Path():
        return Path("index.md")
    return path.relative_to("docs") if path.parts[0] == "docs" else path


def rewritten(text: str, source: Path, root: Path) -> str:
    """``text`` with links from and to the places in the site."""
    here = place(source, root).parent

    def found(link: str) -> Path | None:
        path = (source.parent / link).resolve()
        inside = ":" not in link and path.is_relative_to(root) and path.exists()
        return path if inside else None

    def moved(path: Path) -> str:
        return Path(os.path.relpath(place(path, root), here)).as_posix()

    def of_link(match: re.Match[str]) -> str:
        mark, words, link, anchor = match.groups(default="")
        path = found(link)
        if path is None:
            return match[0]
        return words if path.is_dir() else f"{mark}[{words}]({moved(path)}{anchor})"

    def of_tag(match: re.Match[str]) -> str:
        path = found(match[2])
        return match[0] if path is None else f'{match[1]}="{moved(path)}"'

    return TAG.sub(of_tag, LINK.sub(of_link, text))


if __name__ == "__main__":
    made = Path(sys.argv[1])
    shutil.rmtree(made, ignore_errors=True)
    gather(made)
