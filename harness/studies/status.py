"""Status: how a study stands, in its folder and in the store that it shares with other machines."""

from __future__ import annotations

from harness.runs.bucket import Bucket
from harness.runs.parcel import versions
from harness.studies.agenda import Agenda
from harness.studies.findings import is_settled
from harness.studies.open import OpenStudy
from harness.studies.versions import refuse_others


class StudyStatus:
    """How a study stands, in its folder and in the store that it shares with other machines."""

    def __init__(self, opened: OpenStudy, url: str = "", *, mix_versions: bool = False) -> None:
        """Look at ``opened``, and exchange its runs with the store at ``url``.

        Raises:
            UserError: fsspec does not know the URL.
        """
        self.opened = opened
        self.bucket = Bucket(url, opened.findings.store) if url else None
        self._mix_versions = mix_versions

    def agenda(self) -> Agenda:
        """Exchange runs with the store, until nothing new is found there, and look."""
        while True:
            agenda = self.opened.agenda()
            if self.bucket is None:
                return agenda
            had = [job.key for job, run in agenda.settled.items() if is_settled(run.record)]
            if not self.bucket.exchange([job.key for job in agenda.jobs], had):
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
