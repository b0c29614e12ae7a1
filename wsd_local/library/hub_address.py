"""The Hub, or a mirror of it, as an address: what is sent there, and what its failures mean.

Contract: an error names the page, the command or the variable that helps. The token is sent to this address alone, and
never over plain HTTP.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsd_local.errors import ModelError, WsdError
from wsd_local.library.catalog import catalog_models
from wsd_local.library.repo_files import is_digest
from wsd_local.system.network import http_package, hub_token, one_line, requested_wait, withheld, without_secrets

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError


@dataclass(frozen=True, slots=True)
class HubAddress:
    """An address without a slash at its end, and the token that was given for it."""

    endpoint: str
    token: str | None

    @property
    def shown(self) -> str:
        """The address, for people."""
        return without_secrets(self.endpoint)

    @property
    def sent_token(self) -> str | bool:
        """What `huggingface_hub` is to send along; False is nothing."""
        return hub_token(self.endpoint, self.token) or False

    @property
    def note(self) -> str | None:
        """One line that a person should know before a transfer: that the token is not sent."""
        return withheld(self.endpoint, self.token)

    def url(self, repo: str, commit: str, path: str) -> str:
        """Where a file of a repository is."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repo, path, revision=commit, endpoint=self.endpoint)

    @contextmanager
    def explained(self, repo: str, cache: Path) -> Iterator[None]:
        """Turn failures of the Hub, or of the disk with its `cache`, into errors that a person can act on."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        http = http_package()
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise WsdError(f"{repo} must be fetched, and HF_HUB_OFFLINE is set: unset it") from error
        except HfHubHTTPError as error:
            raise self._refused(error, repo) from error
        except (http.HTTPError, http.InvalidURL) as error:
            why = one_line(error) or type(error).__name__
            raise WsdError(
                f"{self.shown} cannot be reached ({why}): check the network, and HF_ENDPOINT if it is set; "
                "the same command goes on from what is there"
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise WsdError(
                    f"the disk of {cache} is full: free some space, or set HF_HOME to a folder on another disk; "
                    "the same command goes on from what is there"
                ) from error
            raise WsdError(f"{cache}: cannot be used: {one_line(error)}") from error

    def _refused(self, error: HfHubHTTPError, repo: str) -> WsdError:
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        status, page = error.response.status_code, f"{self.shown}/{repo}"
        said, log_in = one_line(error.response.headers.get("X-Error-Message", "")), "hf auth login, or HF_TOKEN"
        if self.note is not None:
            log_in = "an https:// address in HF_ENDPOINT: no token is sent over plain HTTP"
        if isinstance(error, GatedRepoError):
            if "authorization" in error.response.request.headers:
                return ModelError(
                    f"{repo} is gated, and your account may not read it yet: open {page}, accept the licence, wait if "
                    f"the owner must agree, and run the command again; for another account: {log_in}"
                )
            return ModelError(
                f"{repo} is gated: open {page}, log in there and accept the licence; then log in here ({log_in}) and "
                "run the command again"
            )
        if status == 401 and "credentials" in said.lower():
            return ModelError(f"{self.shown} does not accept the token: log in again ({log_in}), or unset HF_TOKEN")
        if isinstance(error, (EntryNotFoundError, RevisionNotFoundError)):
            return ModelError(f"{repo}: a file or revision of it is not there any more; look at {page}")
        if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
            repos = {entry.repo for entry in catalog_models().values() if entry.repo not in (None, repo)}
            close = difflib.get_close_matches(repo, [one for one in repos if one is not None], 1)
            mean = f"; did you mean {close[0]!r}?" if close else ""
            return ModelError(
                f"{repo} does not exist, or is private or gated: look at {page}, and log in if you may read it "
                f"({log_in}){mean}"
            )
        why = f" ({said})" if said else ""
        if status == 403:
            return ModelError(f"{repo} may not be read{why}: look at {page}; to log in: {log_in}")
        wait = requested_wait(error.response)
        later = "later" if wait is None else f"in {wait:.0f} s"
        return WsdError(
            f"{self.shown} answers {status} for {repo}{why}: try again {later}; "
            "the same command goes on from what is there"
        )

    def stranger(self) -> WsdError:
        """The error for answers that no Hub gives."""
        return WsdError(f"{self.shown} does not answer as the Hub does: check HF_ENDPOINT, and the network's login")

    def hexadecimal(self, value: str | None) -> str:
        """A hash that the server states, checked: it becomes part of a path."""
        if value is None or not is_digest(value):
            raise self.stranger()
        return value
