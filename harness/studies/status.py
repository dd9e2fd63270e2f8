"""Status: how a study stands, in its folder and in the store that it shares with other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.errors import HarnessError, UserError
from harness.runs.bucket import Bucket
from harness.runs.parcel import versions
from harness.spec.device import Device, DeviceChoice
from harness.studies.agenda import Agenda
from harness.studies.findings import is_settled
from harness.studies.open import OpenStudy
from harness.studies.resolved import ResolvedArms, devices_of, parsed_arms
from harness.studies.steering import take_over
from harness.studies.versions import refuse_others

DECISIONS = ".decisions"  # folders of the store, beside those of suites
ARMS = ".arms"


class StudyStatus:
    """How a study stands, in its folder and in the store that it shares with other machines."""

    def __init__(
        self,
        opened: OpenStudy,
        url: str = "",
        *,
        mix_versions: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Look at ``opened``, and exchange its runs and decisions with the store at ``url``.

        ``say`` hears what a person should know of it.

        Raises:
            UserError: fsspec does not know the URL.
        """
        self.opened = opened
        self.bucket = Bucket(url, opened.findings.store, say) if url else None
        self._mix_versions = mix_versions
        self._say, self._skips = say, False
        self._kept: set[tuple[str, ...]] = set()  # variants added when its arms were last kept
        self._knows_older = False

    def agenda(self) -> Agenda:
        """Exchange what there is with the store, until nothing new is found there, and look."""
        if self.bucket is not None:
            self._share_decisions(self.bucket)
        return self._look(self.opened)

    def _look(self, opened: OpenStudy) -> Agenda:
        if self.bucket is None:
            return opened.agenda()
        while True:
            agenda = opened.agenda()
            had = [job.key for job, run in agenda.settled.items() if is_settled(run.record)]
            if not self.bucket.exchange([job.key for job in agenda.jobs], had):
                return agenda

    def steer(self, drop: Sequence[str], add: Sequence[str], more_seeds: int) -> None:
        """Enter decisions, which may be about what another machine has decided before.

        Raises:
            UserError: see :meth:`harness.studies.open.OpenStudy.steer`.
        """
        if self.bucket is not None:
            self._share_decisions(self.bucket)
        self.opened.steer(drop, add, more_seeds)

    def _share_decisions(self, bucket: Bucket) -> None:
        """Lay down those that persons took here, and take over those from elsewhere."""
        decisions = self.opened.steering().decisions
        own = [one.model_dump_json() for one in decisions if one.kind != "give_up"]
        where = f"{DECISIONS}/{self.opened.key}"
        take_over(self.opened.log, bucket.share(where, own), f"--store, {where}")
        if not self._knows_older:
            self._take_older(bucket)
        self._knows_older = True

    def _take_older(self, bucket: Bucket) -> None:
        """Take over what older harnesses laid down under names that other studies have too.

        Their decisions may be about such a study: they are taken where what was kept beside them
        is of this one, or nothing is.
        """
        for name in self.opened.older_keys:
            if name != self.opened.key:
                self._take_from(bucket, name)

    def _take_from(self, bucket: Bucket, name: str) -> None:
        arms = bucket.share(f"{ARMS}/{name}", ())
        known = [one for text in arms if (one := parsed_arms(text)) is not None]
        of_this = [one for one in known if self.opened.is_asked_by(one)]
        for one in of_this:
            self.opened.kept_arms.keep(one)
        if of_this or not known:
            where = f"{DECISIONS}/{name}"
            take_over(self.opened.log, bucket.share(where, ()), f"--store, {where}")

    def look_where_it_ran(self, kind: DeviceChoice) -> bool:
        """Look at the runs of another device from here on, where there are none of this one.

        It is one of that ``kind``; of several, the one with the most runs, since runs of
        different devices are not compared. Where this machine lacks what the study needs, its
        device counts as another: what was resolved for it elsewhere is looked at. Returns whether
        anything but this machine's own resolution is looked at.

        Raises:
            HarnessError: there is none, and the study, or the kind, does not fit this machine.
        """
        if self.bucket is not None:
            self._share_decisions(self.bucket)
            self._share_arms(self.bucket)
        trouble: HarnessError | None = None
        try:
            if self._has_runs_here(kind):
                return False
        except HarnessError as error:
            trouble = error
        found = list(self._elsewhere(kind))
        where = None
        if trouble is not None:  # the runs of its own device come first
            where, _ = self._with_most_runs(one for one in found if self._is_here(one))
        if where is not None:
            self._say(f"The study cannot be resolved here: {trouble}")
        else:
            where, more = self._with_most_runs(one for one in found if not self._is_here(one))
            trouble = trouble or more
        if where is None and trouble is not None:
            raise trouble
        self.opened = where or self.opened
        if self.opened.lacking:
            names = ", ".join(self.opened.lacking)
            self._say(f"{names} has been added since, and cannot be resolved here: left out.")
        return where is not None

    def _is_here(self, one: OpenStudy) -> bool:
        return one.device == self.opened.device

    def _with_most_runs(
        self, found: Iterable[OpenStudy]
    ) -> tuple[OpenStudy | None, HarnessError | None]:
        """The one with the most runs, and what went wrong with the first that did not open."""
        trouble: HarnessError | None = None
        counted: list[tuple[int, OpenStudy]] = []
        for one in found:
            try:
                counted.append((len(self._look(one).settled), one))
            except HarnessError as error:  # it cannot be resolved for that device here
                trouble = trouble or error
        most, where = max(counted, key=lambda one: one[0], default=(0, None))
        return (where if most else None), trouble

    def _has_runs_here(self, kind: DeviceChoice) -> bool:
        if kind in ("auto", self.opened.device.kind):
            return bool(self._look(self.opened).settled)
        raise UserError(
            f"no run of this study was made on a {kind} device, and there is none here",
            where=f"--device {kind}",
            hint="leave it out to see the runs that there are",
        )

    def _elsewhere(self, kind: DeviceChoice) -> Iterator[OpenStudy]:
        """The study on every device of the kind that it, or any run of the store, was on.

        On this device too, where it was kept: with as many of the added variants as any has.
        """
        opened, added = self.opened, self.opened.steering().added
        best: dict[Device, list[ResolvedArms]] = {}
        for kept in opened.kept_arms.read(self._skipped):
            if not kept.is_of(opened.study) or added[: len(kept.decided)] != kept.decided:
                continue
            held = best.setdefault(kept.device, [])
            if held and len(held[0].decided) < len(kept.decided):
                held.clear()
            if not held or len(held[0].decided) == len(kept.decided):
                held.append(kept)
        found = [opened.run_on(kept.device, kept) for held in best.values() for kept in held]
        known = {opened.device, *best}
        others = sorted(devices_of(opened.findings.store) - known, key=str)
        found += [opened.run_on(device) for device in others]
        yield from (one for one in found if kind in ("auto", one.device.kind))

    def _share_arms(self, bucket: Bucket) -> None:
        """Lay down what this study was resolved to here, and take over what it was elsewhere."""
        kept, where = self.opened.kept_arms, f"{ARMS}/{self.opened.key}"
        own = [one.model_dump_json() for one in kept.read(self._skipped)]
        kept.take_over(bucket.share(where, own), f"--store, {where}", self._skipped)

    def _skipped(self, error: HarnessError) -> None:
        """Say once that some of the kept arms are no use here: no run depends on them."""
        if not self._skips:
            what = "what this study compares on some device cannot be read here and is left out"
            self._say(f"{what}: {error.what} ({error.where})")
        self._skips = True

    def next_round(self) -> Agenda:
        """As :meth:`before_running`; the arms are kept, so that other machines find the runs.

        Raises:
            StorageError: they cannot be written.
        """
        agenda, decided = self.before_running(), self.opened.steering().added
        if decided not in self._kept:
            self.opened.kept_arms.keep(self.opened.resolved())
            if self.bucket is not None:
                self._share_arms(self.bucket)
            self._kept.add(decided)
        return agenda

    def before_running(self) -> Agenda:
        """The agenda, where this machine may add runs to those that there are.

        Raises:
            UserError: it has other versions than the machines that made them.
        """
        agenda = self.agenda()
        if agenda.jobs and not self._mix_versions:
            refuse_others(agenda, versions())
        return agenda
