"""The written pages: complete, the same bytes every time, and deaf to hostile text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from harness.report import markdown
from harness.report.blocks import Cell, Figure, Section, Span
from harness.report.claims.page import ClaimsPage
from harness.report.figures.canvas import Axis
from harness.report.figures.histogram import Histogram
from harness.report.write import bound, markdown_page, write_figure, write_report
from tests.report.records import Made, build_from, write_run, write_runs

HOSTILE = (
    "</code></pre><script>alert(1)</script> | a | ``` ```` <img src=x onerror=alert(1)> "
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png) http://evil.example @someone "
    "$x$ **bold** {{ 7 * 7 }} \x1b[31m \u202egnp.exe"
)


class Page(HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(text: str) -> Page:
    page = Page()
    page.feed(text)
    return page


def render(text: str) -> Page:
    """As a code-hosting page would: CommonMark with tables and raw HTML let through."""
    return parse(MarkdownIt("commonmark").enable("table").render(text))


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    write_runs(
        root / "runs",
        [
            Made("lora_bf16", hostile=HOSTILE),
            Made("qlora_nf4", hostile=HOSTILE),
            Made("full_finetune", status="oom", hostile=HOSTILE),
        ],
    )
    write_report(build_from(root / "runs"), root / "report")
    return root / "report"


def test_the_page_is_one_file_without_network(hostile_report: Path) -> None:
    page = parse((hostile_report / "report.html").read_text())
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            beside = tag == "a" and value == "statistics.md"
            assert value is None or value.startswith("#") or beside, (tag, name, value)
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "img")]
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_hostile_text_stays_text_in_html(hostile_report: Path) -> None:
    page = parse((hostile_report / "report.html").read_text())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    text = "".join(page.text)
    assert "<script>alert(1)</script>" in text
    assert "{{ 7 * 7 }}" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\ufffd" in text


def test_hostile_text_stays_text_in_markdown(hostile_report: Path) -> None:
    page = render((hostile_report / "report.md").read_text())
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    links = [a.get("href") or "" for tag, a in page.tags if tag == "a" and "href" in a]
    assert all(link.startswith("figures/") or link == "statistics.md" for link in links)
    assert "statistics.md" in links
    assert (hostile_report / "statistics.md").stat().st_size > 1000
    images = [a.get("src") or "" for tag, a in page.tags if tag == "img"]
    assert all(image.startswith("figures/") for image in images)
    assert "<script>alert(1)</script>" in "".join(page.text)


def test_every_figure_named_by_the_page_exists(hostile_report: Path) -> None:
    text = (hostile_report / "report.md").read_text()
    names = set(re.findall(r"figures/[\w.-]+", text))
    assert len(names) > 20
    for name in names:
        assert (hostile_report / name).stat().st_size > 1000
    drawn = {f"figures/{path.name}" for path in (hostile_report / "figures").iterdir()}
    assert drawn == names


def test_all_sections_are_on_both_pages(seven_runs: Path, seven_written: Path) -> None:
    report = build_from(seven_runs)
    keys = {section.key for section in report.sections}
    assert {
        "summary", "ranking", "tradeoff", "differences", "accounting", "noise", "loss", "memory",
        "time", "corpus", "generations", "provenance", "reproduce",
    } <= keys  # fmt: skip
    html = parse((seven_written / "report.html").read_text())
    ids = [attributes["id"] for _, attributes in html.tags if "id" in attributes]
    assert keys <= set(ids)
    assert len(ids) == len(set(ids)), "ids are unique, those inside figures too"
    text = (seven_written / "report.md").read_text()
    assert all(f'<a id="{key}"></a>' in text for key in keys)


def test_tables_render_with_equal_columns(seven_written: Path) -> None:
    lines = (seven_written / "report.md").read_text().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert tables
    page = render("\n".join(lines))
    assert [tag for tag, _ in page.tags].count("table") >= 8
    counts = {"th": 0, "td": 0}
    for tag, _ in page.tags:
        if tag in counts:
            counts[tag] += 1
    # Each line's unescaped bars make its cells: no row lost or gained any.
    cells = sum(len(re.findall(r"(?<!\\)\|", line)) - 1 for line in tables if "---" not in line)
    assert sum(counts.values()) == cells


def test_equal_reports_have_equal_bytes(
    seven_runs: Path, seven_written: Path, tmp_path: Path
) -> None:
    write_report(build_from(seven_runs), tmp_path)
    assert contents(tmp_path) == contents(seven_written)


def contents(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_figures_of_an_earlier_report_are_removed(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", [Made("qlora_nf4")])
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.svg").write_text("<svg/>")
    write_report(build_from(tmp_path / "runs"), tmp_path)
    assert not (tmp_path / "figures" / "old.svg").exists()


@pytest.mark.parametrize(
    "text",
    ["a_b", "_a_", "*a*", "`a`", "a|b", "<b>", "&amp;", "# a", "1. a", "- a", "\\", "~~a~~", "a]("],
)
def test_escaped_text_renders_as_itself(text: str) -> None:
    page = render(markdown.paragraph(text))
    assert "".join(page.text).strip() == text
    assert [tag for tag, _ in page.tags] == ["p"]


def test_a_fence_is_longer_than_any_inside() -> None:
    page = render(markdown.fence("a\n````\n# b\n```"))
    assert [tag for tag, _ in page.tags] == ["pre", "code"]


def test_names_are_code_only_where_that_is_safe() -> None:
    assert markdown.inline_code("qlora_nf4+adapter.r=8") == "`qlora_nf4+adapter.r=8`"
    assert "`" not in markdown.inline_code("a`b").replace("\\`", "")
    assert markdown.cell(Cell("a|b", style="code")) == "a\\|b"
    assert markdown.span(Span("x ", "strong")) == "**x** "


def test_files_of_a_run_are_linked_from_where_the_page_lies(tmp_path: Path) -> None:
    made = Made("lora_bf16")
    log = write_run(tmp_path / "a folder" / "runs", made) / "log.txt"
    log.write_text("what was said")
    report = build_from(tmp_path / "a folder" / "runs")
    local, published = tmp_path / "a folder" / "quick", tmp_path / "published"
    write_report(report, local, linked=True)
    write_report(report, published)
    addresses = re.findall(r'href="(\.\./[^"]+)"', (local / "report.html").read_text())
    found = {(local / unquote(address)).resolve() for address in addresses}
    assert log.resolve() in found
    assert all(path.exists() for path in found)
    assert 'href="../' not in (published / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1.71 GiB, −4.00 % [−1 %, 2 %]", "1.71~GiB, −4.00~% [−1~%, 2~%]"),
        ("3 min 50 s and 2 seeds, 4 steps", "3~min 50~s and 2 seeds, 4 steps"),
        ("1.97 kJ in 28 B", "1.97~kJ in 28~B"),
    ],
)
def test_no_line_ends_between_a_number_and_its_unit(text: str, shown: str) -> None:
    assert bound(text) == shown.replace("~", "\u00a0")


def test_the_recommended_row_is_marked_in_the_ranking(seven_written: Path) -> None:
    page = (seven_written / "report.html").read_text(encoding="utf-8")
    (row,) = re.findall(r'<tr class="recommended".*?</th>', page)
    assert "<code>lora_bf16</code>" in row


@pytest.mark.parametrize("narrow", [False, True])
def test_a_markdown_page_shows_phones_the_narrow_form_where_it_has_one(
    tmp_path: Path, *, narrow: bool
) -> None:
    """A browser takes the first source that fits, and each names a file that is there."""
    drawing = Histogram(Axis("tokens"), Axis("conversations"), (64, 128), (3, 5))
    figure = Figure("lengths", "Lengths", "how long they are", drawing, narrow=narrow)
    write_figure(figure, tmp_path)
    page = ClaimsPage("Own", (Section("figures", "Figures", (figure,)),))
    tags = render(markdown_page(page)).tags
    sources = [attrs for tag, attrs in tags if tag == "source"]
    dark = "(prefers-color-scheme: dark)"
    phone = [f"(max-width: 40rem) and {dark}", "(max-width: 40rem)"] if narrow else []
    assert [attrs["media"] for attrs in sources] == [*phone, dark]
    named = {str(attrs["srcset"]) for attrs in sources}
    named |= {str(attrs["src"]) for tag, attrs in tags if tag == "img"}
    named |= {str(attrs["href"]) for tag, attrs in tags if tag == "a" and "png" in str(attrs)}
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert named == there
    if narrow:
        wide, small = (
            float(re.findall(r'width="([\d.]+)pt"', (tmp_path / "figures" / name).read_text())[0])
            for name in ("lengths.svg", "lengths.narrow.svg")
        )
        assert small < 0.6 * wide
