"""Every published report and study, made again from its records; the session ``report``."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from harness.report.claims.brief import findings_brief
from harness.report.claims.publish import FINDINGS, write_findings
from harness.report.publish import RECORDS, is_published, rebuild_report
from harness.studies.published import is_published as is_published_study
from harness.studies.published import rebuild_study

BRIEF = re.compile(
    r"<!-- findings: made by `harness claims reports/(?P<name>\w+) --markdown` -->"
    r"(?P<text>.*?)<!-- /findings -->",
    re.DOTALL,
)


def published(reports: Path) -> list[Path]:
    """Folders below ``reports`` that hold a report, or a study's page, with its records."""
    found = {path.parent for path in reports.glob(f"*/{RECORDS}")}
    return sorted(path for path in found if is_published(path) or is_published_study(path))


def rebuild(folder: Path, scratch: Path) -> None:
    """Make what is published in ``folder`` again in ``scratch``."""
    if is_published_study(folder):
        rebuild_study(folder, scratch)
    else:
        rebuild_report(folder, scratch)
    if (folder / FINDINGS).is_file():
        write_findings(folder, scratch)


def brief_differs(readme: Path, reports: Path) -> list[str]:
    """What README says of published findings, where that is not what their records give."""
    found = BRIEF.search(readme.read_text(encoding="utf-8"))
    if found is None:
        return []
    brief = findings_brief((reports / found["name"]).resolve())
    return [] if found["text"].strip() == brief.strip() else [f"{readme}: {found['name']}"]


def report_files(folder: Path) -> dict[str, bytes]:
    """Everything a reader of the report sees, by path."""
    pages = [folder / name for name in ("report.md", "report.html", "statistics.md", FINDINGS)]
    found = [*pages, *(folder / "figures").rglob("*")]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in found if path.is_file()
    }


def differences(folder: Path) -> list[str]:
    """Files of a published report that its records do not give again."""
    with tempfile.TemporaryDirectory() as scratch:
        rebuild(folder, Path(scratch))
        committed, rebuilt = report_files(folder), report_files(Path(scratch))
    names = sorted(committed.keys() | rebuilt.keys())
    return [f"{folder}/{name}" for name in names if committed.get(name) != rebuilt.get(name)]


if __name__ == "__main__":
    folders = published(Path(sys.argv[1]))
    print("rebuilt from records:", ", ".join(map(str, folders)) or "none is published")
    different = [line for folder in folders for line in differences(folder)]
    different += brief_differs(Path("README.md"), Path(sys.argv[1]))
    sys.exit("not what its records give:\n" + "\n".join(different) if different else None)
