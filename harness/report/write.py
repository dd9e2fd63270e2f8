"""Write: a Report as files, with the same bytes for the same report."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from harness.report import markdown
from harness.report.blocks import Block, Details, Figure, Section
from harness.report.figures import draw
from harness.report.figures.canvas import Drawing
from harness.spec.storage import write_bytes

if TYPE_CHECKING:
    from jinja2 import Environment


class Page(Protocol):
    """What can be written: the report of a suite, or the answer of a study."""

    @property
    def title(self) -> str:
        """Its heading."""

    @property
    def sections(self) -> tuple[Section, ...]:
        """What it is made of."""


Links = Sequence[tuple[str, str]]
TEMPLATES = Path(__file__).parent / "templates"
METHODS = "statistics.md"
ITEMS = "items.html"


def write_report(
    report: Page, folder: Path, items: str | None = None, *, linked: bool = False
) -> Path:
    """Write ``report.md``, ``report.html``, ``statistics.md`` and ``figures/`` below ``folder``.

    With ``items``, made by :func:`harness.report.browse.items_page`, ``items.html`` is written
    and linked too; it holds text of the data. ``linked``: the page links files of runs, such as
    logs, where they lie on this machine. Figures of an earlier report that this one does not
    have are removed, and so is such a page.

    Returns:
        The path of ``report.md``.

    Raises:
        StorageError: the folder cannot be written.
    """
    vectors = {figure.name: write_figure(figure, folder) for figure in _figures(report)}
    for old in (folder / "figures").glob("*.*"):
        if old.suffix in (".svg", ".png") and old.name.partition(".")[0] not in vectors:
            old.unlink(missing_ok=True)  # another command may write here too
    links = () if items is None else (("Items", ITEMS),)
    place = folder if linked else None
    page = html_page(report, _pictures(report, vectors), links=links, place=place)
    write_bytes(folder / "report.html", page.encode())
    if items is None:
        (folder / ITEMS).unlink(missing_ok=True)
    else:
        write_bytes(folder / ITEMS, items.encode())
    write_bytes(folder / "report.md", markdown_page(report).encode())
    write_bytes(folder / METHODS, _methods().read_bytes())
    return folder / "report.md"


def write_figure(figure: Figure, folder: Path) -> bytes:
    """Write a figure below ``figures/`` as SVG for light and dark pages and as PNG; the SVG.

    Where the figure asks for it, its form for phones stands beside as SVG.
    """
    vector, raster = draw.draw(figure.drawing, figure.alt)
    files = {"svg": vector, "dark.svg": draw.darken(vector), "png": raster}
    if figure.narrow:
        narrow = draw.draw_narrow(figure.drawing, figure.alt)
        files |= {"narrow.svg": narrow, "narrow.dark.svg": draw.darken(narrow)}
    for ending, data in files.items():
        write_bytes(folder / "figures" / f"{figure.name}.{ending}", data)
    return vector


class Gallery:
    """Figures as SVG for inside a page; a figure that another report has too is drawn once."""

    def __init__(self) -> None:
        """Nothing is drawn yet."""
        self._kept: dict[tuple[Drawing, str, bool], str] = {}

    def pictures(self, report: Page) -> dict[str, str]:
        """Every figure of a report, wide and narrow, by name; what it has not is forgotten."""
        kept: dict[tuple[Drawing, str, bool], str] = {}
        found = {}
        for figure in _figures(report):
            for narrow in (False, True):
                name = f"{figure.name}-narrow" if narrow else figure.name
                key = (figure.drawing, f"{name}\0{figure.alt}", narrow)
                kept[key] = self._kept.get(key) or draw.inline(_vector(figure, narrow), name)
                found[name] = kept[key]
        self._kept = kept
        return found


def _vector(figure: Figure, narrow: bool) -> bytes:  # noqa: FBT001
    paint = draw.draw_narrow if narrow else draw.draw_vector
    return paint(figure.drawing, figure.alt)


def _pictures(report: Page, vectors: Mapping[str, bytes]) -> dict[str, str]:
    """Every figure as SVG for inside a page, wide and narrow, by name."""
    pictures = {name: draw.inline(vector, name) for name, vector in vectors.items()}
    for figure in _figures(report):
        narrow = draw.draw_narrow(figure.drawing, figure.alt)
        pictures[f"{figure.name}-narrow"] = draw.inline(narrow, f"{figure.name}-narrow")
    return pictures


def methods_page() -> bytes:
    """The page on statistics that reports link."""
    return _methods().read_bytes()


def _methods() -> Path:
    """The page on statistics that reports link: packed beside the templates, or in the checkout."""
    packed = TEMPLATES / METHODS
    return packed if packed.is_file() else Path(__file__).parents[2] / "docs" / METHODS


def markdown_page(report: Page) -> str:
    """The report for a code-hosting page; figures lie beside it in ``figures/``."""
    return _tidy(_environment().get_template("report.md.j2").render(report=report))


def html_page(
    report: Page,
    pictures: Mapping[str, str],
    version: str = "",
    links: Links = (),
    place: Path | None = None,
) -> str:
    """The report as one file that needs no network.

    ``pictures`` holds inline SVG by name, ``links`` titles and addresses of pages beside it. With
    a ``version`` the page asks its server for it, and loads itself anew when that has changed.
    ``place`` is the folder that the page is for, from which files of runs are linked.
    """
    own = {
        "report": report,
        "pictures": pictures,
        "version": version,
        "links": links,
        "place": place,
    }
    return fill_page("report.html.j2", ("page.css",), ("theme.js", "axes.js", "page.js"), own)


def fill_page(
    template: str, styles: Sequence[str], scripts: Sequence[str], own: Mapping[str, Any]
) -> str:
    """A page with its styles and scripts inside; a policy lets no other script run."""
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _environment().get_template(template)
    return page.render(**own, style=style, script=script, script_hash=digest)


def as_script(data: Mapping[str, Any]) -> str:
    """Data as JSON that no text in it can end or turn into markup."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _tidy(page: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def _figures(report: Page) -> Iterator[Figure]:
    for section in report.sections:
        yield from _figures_in(section.blocks)


def _figures_in(blocks: Sequence[Block]) -> Iterator[Figure]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Details):
            yield from _figures_in(block.blocks)


def _environment() -> Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(("html.j2",), default=False),
        undefined=jinja2.StrictUndefined,
        finalize=_finish,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        md=markdown.escape,
        md_start=markdown.paragraph,
        md_cell=markdown.cell,
        md_span=markdown.span,
        fence=markdown.fence,
        kind=lambda block: type(block).__name__,
        script=lambda value: as_script(asdict(value)),
        halves=_halves,
        bound=bound,
        address=_address,
        choices=_choices,
        tagged=lambda tags: "|".join(f"{kind}={value}" for kind, value in tags),
        attribute=lambda text: html.escape(" ".join(text.split()), quote=True),
    )
    return environment


def _address(path: Path, place: Path) -> str:
    """Where ``path`` lies, for a page in the folder ``place``."""
    way = os.path.relpath(path.absolute(), place.absolute())
    return quote(Path(way).as_posix())


def _halves(text: str) -> tuple[str, str]:
    """A value, and the interval or spread that stands smaller below it."""
    found = re.fullmatch(r"([^(\[]*\S) ([\[(].*[\])])", text)
    return (found[1], found[2]) if found else (text, "")


UNIT = re.compile(r"(?<=\d) (?=(?:%|[KMGT]iB|B|ms|s|min|h|k?J|k?Wh)(?!\w))")


def bound(text: str) -> str:
    """``text`` with numbers bound to their units, so that no line ends between them."""
    return UNIT.sub("\u00a0", text)


def _choices(tags: Sequence[Sequence[tuple[str, str]]]) -> list[tuple[str, list[str]]]:
    """The kinds of tags that tell rows apart, each with its values in order."""
    found: dict[str, set[str]] = {}
    for row in tags:
        for kind, value in row:
            found.setdefault(kind, set()).add(value)
    return [
        (kind, sorted(values, key=lambda value: (len(value), value)))
        for kind, values in found.items()
        if len(values) > 1
    ]


def _finish(value: object) -> object:
    """No control character reaches a page; markup of our own is left alone."""
    plain = isinstance(value, str) and not hasattr(value, "__html__")
    return markdown.harmless(str(value)) if plain else value
