"""Open: a study at work: its file, its folder, its records and the decisions about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UnknownName
from harness.records.store import RunStore
from harness.report.write import write_report
from harness.spec.device import Device
from harness.spec.overrides import merge, parse_setting
from harness.spec.registry import load_study
from harness.spec.study import Study
from harness.studies.agenda import Agenda, next_plans
from harness.studies.arms import StudyArms, compare_what
from harness.studies.findings import Findings
from harness.studies.page import make_page
from harness.studies.published import publish_study
from harness.studies.steering import Steering, decide, read_steering

OF_STUDY = "study."


@dataclass(frozen=True)
class OpenStudy:
    """A study, where it is carried out. Nothing of it is kept in memory that is not on disk."""

    study: Study
    settings: tuple[str, ...]
    device: Device
    reports: Path
    findings: Findings
    _resolved: dict[tuple[str, ...], StudyArms] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its page and its decisions lie."""
        return self.reports / "studies" / self.study.name

    @property
    def log(self) -> Path:
        """Decisions taken while it runs."""
        return self.folder / "decisions.jsonl"

    def steering(self) -> Steering:
        """All decisions so far, those of other terminals too."""
        return read_steering(self.log)

    def comparison(self) -> StudyArms:
        """The arms, those that were added included."""
        added = self.steering().added
        if added not in self._resolved:
            self._resolved[added] = compare_what(self.study, self.device, self.settings, added)
        return self._resolved[added]

    def agenda(self) -> Agenda:
        """Where it stands and what comes next."""
        return next_plans(self.comparison(), self.findings.find, self.steering())

    def steer(self, drop: Sequence[str], add: Sequence[str], more_seeds: int) -> None:
        """Enter decisions; all of them are checked first.

        Raises:
            UnknownName: an arm to drop that there is not, or a variant to add.
        """
        labels = [arm.label for arm in self.comparison().arms]
        for label in drop:
            if label not in labels:
                raise UnknownName("variant of the study", label, labels)
        compare_what(self.study, self.device, self.settings, (*self.steering().added, *add))
        for label in drop:
            decide(self.log, "drop", label)
        for variant in add:
            decide(self.log, "add", variant)
        if more_seeds:
            decide(self.log, "more_seeds", str(more_seeds))

    def write_page(self, agenda: Agenda) -> Path:
        """Write the page of the study as it stands; returns the markdown file."""
        return write_report(make_page(agenda, self.steering()), self.folder)

    def publish(self, agenda: Agenda, folder: Path) -> Path:
        """Write the page into ``folder``, with the records that it can be made from again."""
        return publish_study(agenda, self.steering(), folder)


def open_study(
    name: str, settings: Sequence[str], suite: str, device: Device, reports: Path
) -> OpenStudy:
    """Read a study by name or path.

    ``settings`` that begin with ``study.`` change the study; the others change its suite or all
    its variants. Either makes another study, whose page and decisions are apart.

    Raises:
        UserError: a name, file or setting that does not fit.
    """
    overrides: dict[str, object] = {"suite": suite} if suite else {}
    kept = []
    for setting in settings:
        if setting.startswith(OF_STUDY):
            overrides = merge(overrides, parse_setting(setting.removeprefix(OF_STUDY)))
        else:
            kept.append(setting)
    study = load_study(name, overrides)
    if kept:
        study = study.model_copy(update={"name": _name_with(study.name, kept)})
    store = RunStore(reports / "runs")
    return OpenStudy(study, tuple(kept), device, reports, Findings(store))


def _name_with(name: str, settings: Sequence[str]) -> str:
    """The study's name with what was set for its runs."""
    from harness.spec.derived_names import derived_name

    overrides: dict[str, object] = {}
    for setting in settings:
        overrides = merge(overrides, parse_setting(setting))
    return derived_name(name, overrides)
