"""What a server is and what it can do, found out by asking it.

Contract: nothing is guessed from an address. A server is recognised by what it answers to small requests
(`recognised`), and is used once it has gone on from given tokens and has scored what it wrote as it did when it wrote
it (`tried`). What is missing is one line that says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from wsd_local.core.sampling import Sampling
from wsd_local.errors import UsageError, WsdError, nearest
from wsd_local.remote.link import MIB, AnswerError, Asked, Check, Link
from wsd_local.remote.pace import Pace
from wsd_local.remote.servers.llama_cpp_python import LlamaCppPythonServer
from wsd_local.remote.servers.own import OwnServer
from wsd_local.remote.servers.protocol import Given, Server, Wish, Written
from wsd_local.remote.servers.sglang import SglangServer
from wsd_local.remote.servers.vllm import VllmServer

ROUNDING = 0.1
"""Nats by which two log-probabilities of one token may differ: kernels for one token and for many round differently."""
_LARGEST_LIST = 4 * MIB
_TIMED = 3
_CANNOT = (
    "serve the model with wsd-local serve, vLLM, SGLang, or llama-cpp-python's server (--logits_all true), which can"
)
_OWNERS: Mapping[str, Callable[[str, str], Server]] = MappingProxyType(
    {"vllm": VllmServer, "sglang": SglangServer, "me": LlamaCppPythonServer}
)
"""What kinds of servers write into `owned_by` of their models."""


@dataclass(frozen=True, slots=True)
class Found:
    """A server that may be the base of a pair.

    Args:
        server: the protocol that it speaks.
        n_ctx: tokens that it takes at once; None if it does not say.
        alive: path of a small answer, for measuring.
        vocabulary: path of its vocabulary as a file; None if it does not offer one.
        version: what it says of itself.
    """

    server: Server
    n_ctx: int | None
    alive: str
    vocabulary: str | None = None
    version: str = ""


def recognised(link: Link, check: Check) -> Found:
    """The server at the other end of a link.

    Raises:
        UsageError: it does not serve the model that is wanted, or serves several and none is named.
        WsdError: it cannot be reached, or is of no kind that can be the base of a pair.
    """
    props = _answer(link, "/props", check)
    version = str(props.get("build_info", ""))
    if version.startswith("wsd-local"):
        return _own(link, props, version, check)
    models = _listed(_answer(link, "/v1/models", check).get("data"))
    owners = {str(one.get("owned_by")) for one in models}
    if version or "llamacpp" in owners:
        raise WsdError(f"{link.url} is llama-server, which cannot score given tokens in any version: {_CANNOT}")
    for owner, kind in _OWNERS.items():
        if owner in owners:
            served = {str(one.get("id")): one for one in models if one.get("owned_by") == owner}
            model = chosen(link, list(served))
            version = str(_answer(link, "/version", check).get("version", "")) if owner == "vllm" else ""
            return Found(kind(link.url, model), _count(served[model].get("max_model_len")), "/v1/models", None, version)
    raise WsdError(f"{link.url} is of no kind that is known to score given tokens: {_CANNOT}")


def timed(link: Link, found: Found, pace: Pace, check: Check) -> None:
    """Measure the round trip."""
    for _ in range(_TIMED):
        begun = time.perf_counter()
        link.ask(Asked(found.alive, most=_LARGEST_LIST), check)
        pace.saw(time.perf_counter() - begun)


def tried(link: Link, server: Server, tokens: Sequence[int], check: Check) -> None:
    """Let a server go on from tokens, and score what it wrote.

    Raises:
        WsdError: it cannot do one of both, or the two log-probabilities differ.
    """
    _scored(link, server, tokens, check)
    written = _first(link, server, Wish(tokens, 1, Sampling(), top=0), check)
    if written is None:
        return  # the text ends there
    scored = _scored(link, server, [*tokens, written.id], check)
    writing = None if written.score is None else written.score.logprob
    if writing is not None and abs(writing - scored) > ROUNDING:
        raise WsdError(
            f"{link.url} is {server.kind} and gives a token the log-probability {writing:.3f} when it writes it and "
            f"{scored:.3f} when it scores it: it cannot be a base"
        )


def _scored(link: Link, server: Server, tokens: Sequence[int], check: Check) -> float:
    """The log-probability of the last of some tokens."""
    given = Given(tokens, len(tokens) - 1)
    try:
        return server.scored(link.ask(server.score(given), check), given).scores[0].logprob
    except AnswerError as error:
        raise WsdError(
            f"{link.url} is {server.kind} and does not score given tokens: {_reason(error, link)}"
        ) from error


def _first(link: Link, server: Server, wish: Wish, check: Check) -> Written | None:
    stream = link.stream(server.write(wish))
    try:
        while (event := stream.next(check)) is not None:
            part = server.written(event, wish, 0)
            if part.tokens:
                return part.tokens[0]
            if part.ended is not None:
                return None
    except AnswerError as error:
        raise WsdError(f"{link.url} is {server.kind} and does not go on from a text: {_reason(error, link)}") from error
    finally:
        stream.close()
    return None


def _reason(error: AnswerError, link: Link) -> str:
    text = str(error).removeprefix(f"{link.url} ")
    hint = "start it with --logits_all true; " if "logits_all" in text else ""
    return f"{hint}{text}"


def chosen(link: Link, names: Sequence[str], named: Callable[[str], str] = str) -> str:
    """The model that is wanted, of those that a server has.

    Raises:
        UsageError: there is no such model, or there are several and none is named.
    """
    wanted = link.address.model
    if wanted is None:
        if len(names) == 1:
            return names[0]
        known = ", ".join(names[:8]) or "none"
        raise UsageError(f"{link.url} serves several models: choose one with --base-model ({known})")
    for name in (wanted, named(wanted)):
        if name in names:
            return name
    raise UsageError(f"{link.url} serves no model {wanted!r}{nearest(wanted, list(names))}")


def _own(link: Link, props: Mapping[str, Any], version: str, check: Check) -> Found:
    model = chosen(link, list(_bases(props)), lambda wanted: f"{wanted}:base")
    server = OwnServer(link.url, model)
    link.ask(server.tokenize("a"), check)  # loads the pair, if it is not loaded
    n_ctx = _bases(_answer(link, "/props", check)).get(model, {}).get("n_ctx")
    return Found(server, _count(n_ctx), "/health", f"/v1/vocabulary?model={model}", version)


def _bases(props: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(one.get("id")): one for one in _listed(props.get("models")) if one.get("mode") == "base"}


def _listed(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else None


def _answer(link: Link, path: str, check: Check) -> Mapping[str, Any]:
    """The object that a server has under a path; an empty one if it has none."""
    try:
        answer = link.ask(Asked(path, most=_LARGEST_LIST), check)
    except AnswerError as error:
        if error.status in (401, 403):
            raise
        return {}
    return answer if isinstance(answer, Mapping) else {}
