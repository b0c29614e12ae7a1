"""A judge at an OpenAI-compatible endpoint: one token with its alternatives for each question.

Contract: the verdict is read off the log-probabilities of the first token, with `ALTERNATIVES` alternatives; an answer
that is not among them has at most the least of their probabilities, and that is what it counts with. Tokens are
compared without white space around them. A key is read from the environment variable `KEY_VARIABLE` and sent over TLS,
or to this machine, alone.
"""

from __future__ import annotations

import math
import os
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from wsd_local.errors import UsageError, WsdError
from wsd_local.reports.judge.asking import Asked
from wsd_local.reports.judge.local import log_sum
from wsd_local.reports.judge.verdicts import LEAST, TooLongError
from wsd_local.system.network import AGENT, http_package, is_open, one_line, session, without_secrets

ALTERNATIVES = 20
KEY_VARIABLE = "WSD_LOCAL_JUDGE_API_KEY"
_TIMEOUT_S = 600.0
_PLACES = "/chat/completions"
_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error", "maximum context length", "does not fit")


class EndpointJudge:
    """A model of an endpoint as a judge.

    Args:
        url: its address: up to `/v1`, or the whole one of its chat completions.
        model: the model's name there.

    Raises:
        UsageError: the address is none, or others could read the key on the way to it.
    """

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise UsageError(
                f"{without_secrets(url)}: is no address of a judge: give http://HOST:PORT/v1, and a key in "
                f"{KEY_VARIABLE}"
            )
        path = parts.path.rstrip("/").removesuffix(_PLACES) or "/v1"
        self.url = urlunsplit((parts.scheme, parts.netloc, path + _PLACES, "", ""))
        self.name = model
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if self._key and is_open(self.url):
            raise UsageError(f"{self.url}: others could read the key in {KEY_VARIABLE} on the way; use https://")

    @property
    def identity(self) -> dict[str, Any]:
        """The model's name and its address; whoever serves it may change it, so there is no hash."""
        return {"model": self.name, "url": self.url, "sha256": None}

    def logprobs(self, asked: Asked) -> tuple[float, ...]:
        """Natural log-probabilities of beginning with each of the answers.

        Raises:
            TooLongError: the endpoint says that the question does not fit.
            WsdError: it cannot be reached, refuses, or gives no log-probabilities.
        """
        body = {
            "model": self.name,
            "messages": list(asked.messages),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": ALTERNATIVES,
        }
        listed = self._listed(self._answer(body))
        least = min(listed.values())
        found = [
            [value for token, value in listed.items() if token.strip() == answer] or [least] for answer in asked.answers
        ]
        if all(answer not in {token.strip() for token in listed} for answer in asked.answers):
            raise WsdError(
                f"{self.name} at {self.url}: none of {', '.join(asked.answers)} is among its {len(listed)} most "
                "probable first tokens: choose a model that follows instructions, without a thinking phase"
            )
        return tuple(max(LEAST, log_sum(values)) for values in found)

    def _answer(self, body: dict[str, Any]) -> Any:
        headers = {"User-Agent": AGENT} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        http = http_package()
        try:
            response = session().post(self.url, json=body, headers=headers, timeout=_TIMEOUT_S)
            text = response.text
            if response.is_success:
                return response.json()
        except (http.HTTPError, http.InvalidURL) as error:
            why = one_line(error) or type(error).__name__
            raise WsdError(f"{self.url} cannot be reached ({why}): is the judge running there?") from error
        except ValueError as error:
            raise WsdError(
                f"{self.url} answers with something else than JSON: is it an OpenAI-compatible API?"
            ) from error
        if response.status_code in (400, 413, 422) and any(sign in text for sign in _TOO_LONG):
            raise TooLongError(f"{self.url} answers {response.status_code}: {one_line(text)}")
        raise WsdError(f"{self.url} answers {response.status_code}: {one_line(text)}")

    def _listed(self, answer: Any) -> dict[str, float]:
        """The most probable first tokens and their log-probabilities."""
        try:
            first = answer["choices"][0]["logprobs"]["content"][0]
            rows = [first, *first["top_logprobs"]]
            found = {str(row["token"]): float(row["logprob"]) for row in rows}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WsdError(
                f"{self.url} gives no log-probabilities of the first token, which the verdict is read off: choose "
                "another server or model"
            ) from error
        if not all(math.isfinite(value) for value in found.values()):
            raise WsdError(f"{self.url} gives log-probabilities that are no numbers")
        return found
