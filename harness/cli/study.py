"""Study: the command that answers a question: tunes, repeats until decided, reports."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import out, say
from harness.cli.checks.data import check_run
from harness.cli.checks.plans import check_plans, check_primary
from harness.cli.naming import study_as_asked
from harness.cli.options import (
    DeviceKind,
    DeviceOption,
    ReportsOption,
    SetOption,
    TaskOption,
    TrustOption,
    separate,
)
from harness.cli.placing import (
    AddressOption,
    ExecutorOption,
    JobsOption,
    PartitionOption,
    Placing,
    SpreadOption,
    StoreOption,
    warn_of_load,
)
from harness.cli.sources import DataOption, IncludePathOption, ModelOption, with_sources
from harness.cli.study_options import (
    parse_budget,
    parse_shard,
    refuse_planned,
    refuse_with_look,
)
from harness.cli.study_tables import budget_lines
from harness.cli.study_view import (
    round_line,
    show_answer,
    show_plan,
    show_status,
    show_verdicts_of,
)
from harness.cli.tracking import TrackOption, keep_report
from harness.errors import UserError
from harness.spec.device import Device, detect_device

if TYPE_CHECKING:
    from harness.records.store import RunStore
    from harness.runs.executor import Executor
    from harness.runs.listener import Listener
    from harness.studies.agenda import Agenda
    from harness.studies.drive import Shard
    from harness.studies.open import OpenStudy
    from harness.studies.status import StudyStatus
    from harness.trackers.tracker import Tracker


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="A built-in study, a TOML file, the name that --name gave to one, or a folder "
            "that --publish wrote: it goes on from there."
        ),
    ],
    settings: SetOption = [],  # noqa: B006 - typer copies it
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            "-s",
            help="Suite to use instead of the study's own: also a TOML file, or the name that runs "
            "were given with --name.",
        ),
    ] = "",
    task: TaskOption = [],  # noqa: B006
    model: ModelOption = "",
    data: DataOption = "",
    include_path: IncludePathOption = "",
    claim: Annotated[
        list[str],
        typer.Option(
            help="Run only what this published claim compares, and judge it (repeatable): a "
            "built-in claim or a TOML file.",
        ),
    ] = [],  # noqa: B006
    called: Annotated[
        str,
        typer.Option("--name", help="Name for the changed study, in place of its settings."),
    ] = "",
    budget: Annotated[
        list[str],
        typer.Option(metavar="KEY=NUMBER", help="Stop after hours=2 of run time, or runs=40."),
    ] = [],  # noqa: B006
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would run, without running anything.")
    ] = False,
    gpu: Annotated[
        str, typer.Option(help="With --plan: for this GPU, which need not be here: rtx4090, h100.")
    ] = "",
    peak_share: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="With --gpu: the share of its peak that training reaches, for its time.",
            show_default=False,
        ),
    ] = 0.0,
    status: Annotated[
        bool, typer.Option("--status", help="Show how far the study has come.")
    ] = False,
    shard: Annotated[
        str, typer.Option(help="Run one part of the study: 3/8 is the third of eight parts.")
    ] = "",
    jobs: JobsOption = 0,
    gpus: SpreadOption = "",
    executor: ExecutorOption = "local",
    address: AddressOption = "",
    partition: PartitionOption = "",
    store: StoreOption = "",
    mix_versions: Annotated[
        bool,
        typer.Option("--mix-versions", help="Go on although other versions made earlier runs."),
    ] = False,
    device: DeviceOption = DeviceKind.auto,
    reports: ReportsOption = Path("reports"),
    drop: Annotated[list[str], typer.Option(help="Stop running this variant.")] = [],  # noqa: B006
    add: Annotated[
        list[str],
        typer.Option(
            help="Add this variant to the comparison: lora_bf16, or lora_bf16+adapter.r=4."
        ),
    ] = [],  # noqa: B006
    more_seeds: Annotated[
        int, typer.Option(min=0, help="Allow this many seeds beyond the study's limit.")
    ] = 0,
    publish: Annotated[
        Path | None,
        typer.Option(
            help="Also write the page and its records to this folder, without any text of the data."
        ),
    ] = None,
    track: TrackOption = [],  # noqa: B006
    trust_remote_code: TrustOption = False,
) -> None:
    """Answer a question about variants: tune each, add seeds until it is decided, report."""
    from harness.runs.options import RunOptions
    from harness.studies.open import StudyRequest, open_study, published_as
    from harness.studies.status import StudyStatus
    from harness.trackers.choose import make_trackers

    decides = bool(drop or add or more_seeds)
    given = {"--drop": drop, "--add": add, "--more-seeds": more_seeds, "--status": status}
    looks = [option for option, value in {**given, "--publish": publish}.items() if value]
    refuse_with_look(plan=plan, status=status, decides=decides, publish=publish)
    refuse_planned(gpu, peak_share, plan=plan)
    part = parse_shard(shard)
    spending = parse_budget(budget)
    placing = Placing(executor, jobs, gpus, address, partition)
    runner = placing.make(
        _store(reports), RunOptions(wait=False, trust_remote_code=trust_remote_code)
    )
    settings = with_sources(settings, model, data, include_path)
    typed = StudyRequest(
        study=name,
        settings=tuple(settings),
        suite=suite,
        tasks=tuple(separate(task)),
        called=called,
        claims=tuple(separate(claim)),
    )
    request = study_as_asked(typed, reports)
    here, lost = _device(runner, device, gpu, looks=bool(looks) and not plan)
    opened = open_study(request, here, reports, spending)
    trackers = make_trackers(track, reports)
    if (folder := published_as(name)) is not None:
        _take_in(opened, folder, plan=plan, runs=not looks)
    found = StudyStatus(opened, "" if plan else store, mix_versions=mix_versions, say=say)
    only_looks = bool(looks) and not plan and _only_looks(found, device, here, looks, lost)
    opened = found.opened
    if decides:
        found.steer(drop, add, more_seeds)
        say("noted; a command that is running this study follows it from its next run on.")
        if not only_looks:
            say(f"To run the study here, type it without {' and '.join(looks)}.")
    elif not (plan or status or only_looks):
        _run(found, runner, part, trackers, local=executor == "local")
    agenda = found.agenda()
    if plan:
        check_primary(opened.comparison().arms[0].plan, opened.study.primary)
        show_plan(opened, agenda, peak_share)
        return
    if status:
        show_status(opened, agenda)
    page = show_answer(opened, agenda)
    if opened.study.claims and agenda.settled:
        show_verdicts_of(agenda)
    keep_report(trackers, opened.study.name, page)
    if publish is not None:
        if only_looks and agenda.jobs:
            say(f"{len(agenda.jobs)} runs are missing, which this machine cannot add")
        say(f"published: {opened.publish(agenda, publish)}")


def _take_in(opened: OpenStudy, folder: Path, *, plan: bool, runs: bool) -> None:
    """What was published of a study, into the folder of reports; said where it is new there.

    Who ``runs`` it here must be able to go on with it: that is seen before anything is copied.
    """
    from harness.studies.carried import carry_in, refuse_unlike

    if plan:
        raise UserError(
            "--plan writes nothing, and a published study is copied into the folder of reports",
            hint="look at it with --status first, then plan it by its name",
        )
    if runs:
        refuse_unlike(folder, opened)
    taken = carry_in(folder, opened)
    if taken.runs or taken.decisions:
        say(str(taken))


def _device(
    runner: Executor, kind: DeviceKind, gpu: str, *, looks: bool
) -> tuple[Device, UserError | None]:
    """The device for new runs; who only ``looks`` needs none, and gets why there is none."""
    from harness.spec.gpus import planned_gpu

    try:
        return (planned_gpu(gpu) if gpu else runner.device(kind.value)), None
    except UserError as error:
        if not looks:
            raise
        return detect_device("cpu"), error


def _only_looks(
    found: StudyStatus, kind: DeviceKind, here: Device, looks: list[str], lost: UserError | None
) -> bool:
    """Whether no run can be made here, which is said with the options that only look.

    Raises:
        HarnessError: there are no runs to look at either, and why none can be made.
    """
    elsewhere = found.look_where_it_ran(kind.value)
    if not elsewhere and lost is None:
        return False
    there = found.opened.device
    if lost is not None and not elsewhere and not found.agenda().settled:
        raise lost
    if there != here:
        made, this = there.told_from(here), here.told_from(there)
        say(f"These runs were made on {made}; this one is {this}.")
    more = f"To make runs here, leave out {' and '.join(looks)}."
    say(more if lost is None else f"No runs can be made here: {lost.what}.")
    return True


def _store(reports: Path) -> RunStore:
    from harness.records.store import RunStore

    return RunStore(reports / "runs")


def _run(
    status: StudyStatus,
    executor: Executor,
    shard: Shard,
    trackers: list[Tracker],
    *,
    local: bool,
) -> None:
    """Run all that the study wants; the page is written on every ending, an interrupt too."""
    from harness.cli.board import Board
    from harness.cli.notices import Notices
    from harness.forecast.duration import whole_run_seconds
    from harness.runs.warm_start import warm_start
    from harness.studies.claimed import check_claims
    from harness.studies.drive import Driver

    opened = status.opened
    shared = [status.bucket] if status.bucket is not None else []
    tell = whole_run_seconds(opened.findings.store.root)

    def listeners(agenda: Agenda) -> list[Listener]:
        say(round_line(agenda))
        for line in budget_lines(agenda, tell):
            say(line)
        return [Board(out), Notices(opened.findings.store), *shared, *trackers]

    agenda = status.before_running()
    if not agenda.settled and (others := opened.other_devices()):
        say(f"Runs of this study on {', '.join(others)} are not compared with those made here.")
    if agenda.jobs:
        check_claims(opened.comparison())
        plans = [arm.plan for arm in opened.comparison().arms]
        check_primary(plans[0], opened.study.primary)
        check_plans(plans)
        check_run(plans, opened.reports)
        opened.keep_request()
        if local:
            warn_of_load()
    try:
        with closing(warm_start()):
            driver = Driver(status.next_round, opened.findings, executor, listeners, say)
            driver.drive(shard, opened.study.together)
    except KeyboardInterrupt:
        say(f"interim page: {opened.write_page(opened.agenda())}")
        raise
