"""Status: how a study stands, in its folder and in the store that it shares with other machines."""

from __future__ import annotations

from collections.abc import Sequence

from harness.runs.bucket import Bucket
from harness.runs.parcel import versions
from harness.studies.agenda import Agenda
from harness.studies.findings import is_settled
from harness.studies.open import OpenStudy
from harness.studies.steering import take_over
from harness.studies.versions import refuse_others

DECISIONS = ".decisions"  # a folder of the store, beside those of suites


class StudyStatus:
    """How a study stands, in its folder and in the store that it shares with other machines."""

    def __init__(self, opened: OpenStudy, url: str = "", *, mix_versions: bool = False) -> None:
        """Look at ``opened``, and exchange its runs and decisions with the store at ``url``.

        Raises:
            UserError: fsspec does not know the URL.
        """
        self.opened = opened
        self.bucket = Bucket(url, opened.findings.store) if url else None
        self._mix_versions = mix_versions

    def agenda(self) -> Agenda:
        """Exchange what there is with the store, until nothing new is found there, and look."""
        if self.bucket is None:
            return self.opened.agenda()
        self._share_decisions(self.bucket)
        while True:
            agenda = self.opened.agenda()
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
        where = f"{DECISIONS}/{self.opened.study.name}"
        take_over(self.opened.log, bucket.share(where, own), f"--store, {where}")

    def before_running(self) -> Agenda:
        """The agenda, where this machine may add runs to those that there are.

        Raises:
            UserError: it has other versions than the machines that made them.
        """
        agenda = self.agenda()
        if agenda.jobs and not self._mix_versions:
            refuse_others(agenda, versions())
        return agenda
