"""Open: a study at work: its file, its folder, its records and the decisions about it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import HarnessError, UnknownName, UserError
from harness.records.store import RunStore
from harness.report.write import write_report
from harness.spec.derived_names import derived_name
from harness.spec.device import Device
from harness.spec.overrides import merge, parse_setting, typed_value
from harness.spec.registry import load_study, study_names
from harness.spec.schema import Frozen, parse
from harness.spec.storage import read_json, write_json
from harness.spec.study import Spending, Study
from harness.studies.agenda import Agenda, next_plans
from harness.studies.arms import StudyArms, Typed, compare_what, with_added
from harness.studies.asked import says_where, with_file_names, without_folders
from harness.studies.claimed import limited
from harness.studies.findings import Findings
from harness.studies.page import make_page
from harness.studies.published import is_published, publish_study, published_study
from harness.studies.resolved import KeptArms, ResolvedArms, unlimited
from harness.studies.steering import Kind, Steering, decide, read_steering

OF_STUDY = "study."
REQUEST = "request.json"
DECISIONS = "decisions.jsonl"
ARMS = "arms"  # a folder


class StudyRequest(Frozen):
    """Which study, as typed; ``called`` is the name that it gets in place of its own.

    ``claims`` are those to which it is limited (:attr:`harness.spec.study.Study.claims`). Where it
    was written down, ``typed_in`` is the folder from which its paths lead.
    """

    study: str
    settings: tuple[str, ...] = ()
    suite: str = ""
    tasks: tuple[str, ...] = ()
    called: str = ""
    claims: tuple[str, ...] = ()
    typed_in: str = ""

    def meaning(self) -> tuple[object, ...]:
        """What was typed, however it was spelled: values are parsed and paths are whole."""
        overrides = _overrides(self.settings)
        told = (self.study, self.suite, list(self.tasks), list(self.claims), overrides)
        return (*(_with_whole_paths(one, self.typed_in) for one in told), self.called)

    def from_here(self) -> StudyRequest:
        """The same as it is to be typed in the folder of this process."""
        whole = {
            "study": _whole_path(self.study, self.typed_in),
            "suite": _whole_path(self.suite, self.typed_in),
            "tasks": tuple(_whole_path(one, self.typed_in) for one in self.tasks),
            "claims": tuple(_whole_path(one, self.typed_in) for one in self.claims),
            "settings": tuple(_setting_from(one, self.typed_in) for one in self.settings),
        }
        return self.model_copy(update=whole)


def _setting_from(setting: str, folder: str) -> str:
    """A typed ``KEY=VALUE``, with whole paths in its value where they lead from ``folder``."""
    key, mark, text = setting.partition("=")
    value = typed_value(text)
    whole = _with_whole_paths(value, folder)
    if whole == value or isinstance(whole, dict):  # TOML's tables are not those of JSON
        return setting
    return f"{key}{mark}{whole if isinstance(whole, str) else json.dumps(whole)}"


def _with_whole_paths(value: object, folder: str) -> object:
    """A value with every text that is a path made absolute."""
    if isinstance(value, dict):
        return {key: _with_whole_paths(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_whole_paths(one, folder) for one in value]
    return _whole_path(value, folder) if isinstance(value, str) else value


def _whole_path(text: str, folder: str) -> str:
    """A text that leads to something from ``folder``, or else from here, as an absolute path.

    A copy of the reports may lie on a machine that has no such folder. A bare word may be a
    registered name, whatever lies here under that name.
    """
    if os.sep not in text and not Path(text).suffix:
        return text
    paths = (Path(base, Path(text).expanduser()) for base in (folder, ""))
    return next((str(path.resolve()) for path in paths if path.exists()), text)


def _alike(told: Iterable[object], key: str = "") -> set[str]:
    """What was told, each for itself and without a machine's folders."""
    return {json.dumps(without_folders(one, key), sort_keys=True) for one in told}


def _overrides(settings: Sequence[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for setting in settings:
        found = merge(found, parse_setting(setting))
    return found


@dataclass(frozen=True)
class OpenStudy:
    """A study, where it is carried out. Nothing of it is kept in memory that is not on disk.

    ``lacking`` are variants that were added and are not among its arms (:meth:`run_on`).
    """

    study: Study
    request: StudyRequest
    typed: Typed
    device: Device
    reports: Path
    findings: Findings
    lacking: tuple[str, ...] = ()
    _resolved: dict[tuple[str, ...], StudyArms] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its page and its decisions lie."""
        return self.reports / "studies" / self.study.name

    @property
    def key(self) -> str:
        """Names the study where machines share what is decided about it: by what it asks.

        What may be spent and how it is described make no difference, nor the folder in which a
        machine keeps a file: contents are not told apart, since who only looks may lack them.
        """
        study, settings, tasks = self._told
        told = without_folders(study), without_folders(settings), without_folders(tasks, "tasks")
        return self._key_of(told)

    @property
    def older_keys(self) -> list[str]:
        """What older harnesses called it there, some of them other studies too."""
        return [self.study.name, self._key_of(with_file_names(self._told))]

    @property
    def _told(self) -> list[object]:
        study = unlimited(self.study).model_dump(mode="json", exclude={"description", "question"})
        return [study, _overrides(self.typed.settings), list(self.typed.tasks)]

    def _key_of(self, told: object) -> str:
        text = json.dumps(told, sort_keys=True)
        return f"{self.study.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def is_asked_by(self, kept: ResolvedArms) -> bool:
        """Whether ``kept`` is what this study compares somewhere, as far as was written down."""
        requests = [plan.request for plan in kept.arms if plan.request is not None]
        tasks = _alike(self.typed.tasks, "tasks")
        return kept.is_of(self.study) and all(
            _alike(map(parse_setting, self.typed.settings))
            <= _alike(map(parse_setting, request.settings))
            and _alike(request.tasks, "tasks") == tasks
            for request in requests
        )

    @property
    def log(self) -> Path:
        """Decisions taken while it runs."""
        return self.findings.log

    @property
    def kept_arms(self) -> KeptArms:
        """What it was resolved to so far, on the devices that it was run on."""
        return KeptArms(self.folder / ARMS)

    def refuse_another(self) -> None:
        """Refuse a folder in which other words made another study.

        Files of one name in two folders are shown alike in a study's name, and so are two models.

        Raises:
            UserError: the folder holds the page and the decisions of another study.
        """
        path = self.folder / REQUEST
        if not path.is_file():
            return
        there = read_json(path, StudyRequest)
        if there.meaning() != self.request.meaning():
            words = (there.suite, *there.settings, *there.tasks, *there.claims)
            called = self.request.called
            raise UserError(
                f"{f'--name {called}' if called else self.study.name} is already used by another "
                "study",
                where=self.folder,
                expected=f"{there.study} with {', '.join(filter(None, words)) or 'nothing set'}",
                hint="choose another name" if called else "give this one a name with --name",
            )

    def keep_request(self) -> None:
        """Write down what was typed first, and where; a published folder with its whole path.

        Other words for the same study may not be understood where this folder is copied to.
        """
        path = self.folder / REQUEST
        if path.is_file() and read_json(path, StudyRequest).typed_in:
            return
        folder = published_as(self.request.study)
        whole = {} if folder is None else {"study": str(folder.resolve())}
        update = {"typed_in": self.request.typed_in or str(Path.cwd()), **whole}
        write_json(path, self.request.model_copy(update=update))

    def other_devices(self) -> list[str]:
        """Names of the other devices on which it was run in this folder."""
        found = {one.device for one in self.kept_arms.read() if one.is_of(self.study)}
        every = found | {self.device}
        return sorted({one.told_from(*every) for one in found - {self.device}})

    def resolved(self) -> ResolvedArms:
        """Its arms as they are resolved here, in the form that is kept for other machines."""
        return ResolvedArms.of(self.comparison(), self.device, self.steering().added)

    def run_on(self, device: Device, kept: ResolvedArms | None = None) -> OpenStudy:
        """The same study where it ran on ``device``, of which ``kept`` says what it compares.

        Variants that were added since are ``lacking`` where they cannot be resolved here.
        """
        findings = Findings(self.findings.store, self.log)  # which know runs by their arms' names
        there = replace(self, device=device, findings=findings, _resolved={})
        if kept is None:
            return there
        added, arms = self.steering().added, kept.comparison(self.study)
        there._resolved[kept.decided] = arms  # noqa: SLF001 - its own
        try:
            there.comparison()
        except HarnessError:
            there._resolved[added] = arms  # noqa: SLF001
            return replace(there, lacking=added[len(kept.decided) :])
        return there

    def steering(self) -> Steering:
        """All decisions so far, those of other terminals too."""
        return read_steering(self.log)

    def comparison(self) -> StudyArms:
        """The arms, those that were added included."""
        added = self.steering().added
        if added not in self._resolved:
            self._resolved[added] = self._compare(added)
        return self._resolved[added]

    def _compare(self, added: tuple[str, ...]) -> StudyArms:
        """The arms with these additions, resolved here but for those that are known."""
        known = [one for one in self._resolved if added[: len(one)] == one]
        if not known:
            return compare_what(self.study, self.device, self.typed, added)
        most = max(known, key=len)
        return with_added(self._resolved[most], self.device, self.typed, added, len(most))

    def agenda(self) -> Agenda:
        """Where it stands and what comes next."""
        found = self.findings
        return next_plans(self.comparison(), found.find, self.steering(), found.begun)

    def steer(self, drop: Sequence[str], add: Sequence[str], more_seeds: int) -> None:
        """Enter decisions; all of them are checked first.

        Raises:
            UnknownName: an arm to drop that there is not, or a variant to add.
            UserError: the arm to drop is the reference.
        """
        comparison = self.comparison()
        labels = list(comparison.by_label)
        for label in drop:
            if label not in labels:
                raise UnknownName("variant of the study", label, labels)
            if label == comparison.reference:
                raise UserError(
                    f"{label} is the reference, with which every other variant is compared",
                    where="--drop",
                    hint="for another reference: --set study.reference=NAME, which is a new study",
                )
        if add:
            self._compare((*self.steering().added, *add))
        taken: list[tuple[Kind, str]] = [("drop", label) for label in drop]
        taken += [("add", variant) for variant in add]
        if more_seeds:
            taken.append(("more_seeds", str(more_seeds)))
        decide(self.log, *taken)

    def write_page(self, agenda: Agenda) -> Path:
        """Write the page of the study as it stands; returns the markdown file."""
        self.keep_request()
        return write_report(make_page(agenda, self.steering()), self.folder)

    def publish(self, agenda: Agenda, folder: Path) -> Path:
        """Write the page into ``folder``, with the records that it can be made from again."""
        return publish_study(agenda, self.steering(), folder)


def known_as(typed: StudyRequest, reports: Path) -> StudyRequest | None:
    """The request of the study that was given the name ``typed.study``, where nothing else is said.

    None where that is a study of the harness or a file, or no study was given the name.
    """
    path = reports / "studies" / typed.study / REQUEST
    own = typed.study.endswith(".toml") or typed.study in study_names()
    if own or typed != StudyRequest(study=typed.study) or not path.is_file():
        return None
    return read_json(path, StudyRequest).from_here()


def open_study(
    request: StudyRequest, device: Device, reports: Path, budget: Spending | None = None
) -> OpenStudy:
    """Read a study by name or path; ``budget`` takes the place of its own.

    Settings that begin with ``study.`` change the study; the others change its suite or all its
    variants. Either makes another study, whose page and decisions are apart.

    Raises:
        UserError: a name, file or setting that does not fit, or a name that another study has.
    """
    overrides: dict[str, object] = {"suite": request.suite} if request.suite else {}
    kept = []
    for setting in request.settings:
        if setting.startswith(OF_STUDY):
            overrides = merge(overrides, parse_setting(setting.removeprefix(OF_STUDY)))
        else:
            kept.append(setting)
    if request.claims:
        overrides["claims"] = list(request.claims)
    study = limited(_read_study(request.study, overrides))
    name = request.called or _named(request, study.name, kept)
    study = parse(Study, study.model_dump(mode="json") | {"name": name}, where="--name")
    if budget is not None:  # how much may be spent does not make it another study
        study = study.model_copy(update={"budget": budget})
    log = reports / "studies" / study.name / DECISIONS
    findings = Findings(RunStore(reports / "runs"), log)
    opened = OpenStudy(study, request, Typed(tuple(kept), request.tasks), device, reports, findings)
    opened.refuse_another()
    return opened


def published_as(name: str) -> Path | None:
    """The folder that ``name`` is, where a study was published in it; built-in names come first."""
    folder = Path(name).expanduser()
    return folder if name not in study_names() and is_published(folder) else None


def _read_study(name: str, overrides: dict[str, object]) -> Study:
    """A study by its name, its file, or the folder in which it was published."""
    folder = published_as(name)
    if folder is None:
        return load_study(name, overrides)
    study = published_study(folder)
    if not overrides:
        return study
    changed = merge(study.model_dump(mode="json"), overrides)
    changed["name"] = derived_name(study.name, overrides)
    return parse(Study, changed, where=name)


def _named(request: StudyRequest, name: str, settings: Sequence[str]) -> str:
    """The study's name with what was typed for its runs.

    Where data and models lie is no change to a study that was published.
    """
    if published_as(request.study) is not None:
        settings = [one for one in settings if not says_where(one)]
    overrides = _overrides(settings)
    if request.tasks:
        overrides["task"] = list(request.tasks)
    return derived_name(name, overrides) if overrides else name
