"""Figures of a server in the form of Prometheus.

Contract: every server has a registry of its own. An observer of the service counts what happens to requests, the HTTP
layer counts answers by protocol and status, and what is true at the moment (queue, slots, models in memory) is asked of
the service when the figures are read. Labels have few values: names of served models, protocols, outcomes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wsd_local.events import Source
from wsd_local.version import __version__

if TYPE_CHECKING:
    from wsd_local.errors import WsdError
    from wsd_local.runtime.reply import Reply
    from wsd_local.server.service import Service

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_SHARES = tuple(number / 20 for number in range(1, 21))
_PROTOCOLS = (("/v1/messages", "anthropic"), ("/v1/", "openai"), ("/api/", "ollama"), ("/ui/", "page"))


class Metrics:
    """The figures of one server; an observer of its service.

    Attributes:
        registry: holds them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._count_requests()
        self._count_tokens()
        self._measure_times()
        Gauge("wsd_build", "The version of the server.", ["version"], registry=self.registry).labels(__version__).set(1)

    def _count_requests(self) -> None:
        self._answers = self._counter("wsd_http_answers", "Answers over HTTP.", "protocol", "status")
        self._accepted = self._counter("wsd_requests", "Requests that were accepted.", "model")
        self._replies = self._counter(
            "wsd_replies", "Replies: complete (stop, length), cancelled, failed.", "model", "outcome"
        )
        self._switches = self._counter("wsd_switches", "Why drafting was over.", "model", "reason")
        self._loads = self._counter("wsd_loads", "Times that a pair was loaded.", "pair")

    def _count_tokens(self) -> None:
        self._written = self._counter("wsd_written_tokens", "Tokens that a model wrote.", "model", "source")
        self._kept = self._counter("wsd_kept_tokens", "Tokens of drafts that replies kept, in base tokens.", "model")
        self._prompt = self._counter("wsd_prompt_tokens", "Tokens of prompts.", "model", "source")
        self._cached = self._counter(
            "wsd_cached_tokens", "Tokens of prompts that the cache held already.", "model", "source"
        )
        self._scored = self._counter("wsd_scored_tokens", "Tokens that were scored by request.", "model")

    def _measure_times(self) -> None:
        self._position = self._histogram(
            "wsd_switch_position_tokens", "Kept tokens before the base took over.", _TOKENS, "model"
        )
        self._confidence = self._histogram(
            "wsd_switch_confidence", "Confidence at which the base took over.", _SHARES, "model"
        )
        self._waited = self._histogram("wsd_queue_seconds", "Time in the queue.", _SECONDS, "model")
        self._first = self._histogram("wsd_first_text_seconds", "Time to the first text.", _SECONDS, "model")
        self._whole = self._histogram("wsd_reply_seconds", "Time to the end of a reply.", _SECONDS, "model")
        self._rate = self._histogram(
            "wsd_tokens_per_second", "Rate at which a model wrote its part of a reply.", _RATES, "model", "source"
        )

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, help, labels, buckets=buckets, registry=self.registry)

    # -- what a service reports ------------------------------------------------------------------------------------

    def queued(self, model: str) -> None:
        """See `Observer`."""
        self._accepted.labels(model).inc()

    def started(self, model: str, waited_s: float) -> None:
        """See `Observer`."""
        self._waited.labels(model).observe(waited_s)

    def first_text(self, model: str, seconds: float) -> None:
        """See `Observer`."""
        self._first.labels(model).observe(seconds)

    def finished(self, model: str, reply: Reply, seconds: float) -> None:
        """See `Observer`."""
        self._replies.labels(model, reply.finish_reason).inc()
        self._whole.labels(model).observe(seconds)
        self._count(model, reply)

    def cancelled(self, model: str, reply: Reply | None, seconds: float) -> None:
        """See `Observer`."""
        self._replies.labels(model, "cancelled").inc()
        if reply is not None:
            self._count(model, reply)

    def failed(self, model: str, error: WsdError, seconds: float) -> None:
        """See `Observer`."""
        self._replies.labels(model, "failed").inc()

    def scored(self, model: str, tokens: int, cached: int, seconds: float) -> None:
        """See `Observer`."""
        self._scored.labels(model).inc(tokens)
        self._cached.labels(model, "draft" if model.endswith(":draft") else "base").inc(cached)

    def loaded(self, pair: str, seconds: float) -> None:
        """See `Observer`."""
        self._loads.labels(pair).inc()

    def unloaded(self, pair: str) -> None:
        """See `Observer`."""

    def _count(self, model: str, reply: Reply) -> None:
        """Tokens, rates and the switch of a reply."""
        written: dict[Source, int] = {"draft": reply.draft.drafted_tokens, "base": reply.base.tokens}
        rates: dict[Source, float | None] = {
            "draft": reply.timings.draft_tokens_per_s,
            "base": reply.timings.base_tokens_per_s,
        }
        for source, ids in reply.prompt_ids.items():
            self._prompt.labels(model, source).inc(len(ids))
            self._cached.labels(model, source).inc(reply.cached.get(source, 0))
        for source, tokens in written.items():
            self._written.labels(model, source).inc(tokens)
            if (rate := rates[source]) is not None:
                self._rate.labels(model, source).observe(rate)
        self._kept.labels(model).inc(reply.draft.tokens)
        self._switches.labels(model, reply.switch.reason).inc()
        if reply.switch.index is not None and reply.switch.confidence is not None:
            self._position.labels(model).observe(reply.draft.tokens)
            self._confidence.labels(model).observe(reply.switch.confidence)

    # -- what is true at the moment, and how it is read ------------------------------------------------------------

    def watch(self, service: Service) -> None:
        """Ask this service, whenever the figures are read, what is true then."""
        self.registry.register(_Now(service))

    def answered(self, path: str, status: int) -> None:
        """An answer over HTTP was begun."""
        protocol = next((name for prefix, name in _PROTOCOLS if path.startswith(prefix)), "other")
        self._answers.labels(protocol, str(status)).inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """All figures and their content type, in the newest form that `accept` names."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind


class _Now(Collector):
    """Figures that are asked for when they are read."""

    def __init__(self, service: Service) -> None:
        self._service, self._begun = service, time.time()

    def collect(self) -> Iterable[Metric]:
        """The figures."""
        slots = self._service.status.slots()
        busy = sum(slot.phase != "idle" for slot in slots)
        yield GaugeMetricFamily("wsd_queue_requests", "Requests that wait.", self._service.status.waiting)
        yield GaugeMetricFamily("wsd_slots", "Places for requests in progress.", len(slots))
        yield GaugeMetricFamily("wsd_slots_busy", "Places with a request in progress.", busy)
        yield GaugeMetricFamily("wsd_ready", "1 when requests are answered.", self._service.status.state == "ready")
        yield GaugeMetricFamily("wsd_start_time_seconds", "When the server began, in seconds since 1970.", self._begun)
        models = GaugeMetricFamily("wsd_model_loaded", "1 for a model in memory.", labels=["model"])
        for model in self._service.models():
            models.add_metric([model.id], float(model.loaded))
        yield models


class Counted:
    """Counts the answers of an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(scope["path"], message["status"])
            await send(message)

        await self._app(scope, receive, counting)
