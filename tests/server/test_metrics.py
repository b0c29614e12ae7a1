"""Figures of a server, read as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import ScriptedService, finished, listening

from wsd_local.errors import FitError
from wsd_local.runtime.reply import Switch
from wsd_local.server.app import create_app
from wsd_local.server.desk import Desk
from wsd_local.server.guard import Guard
from wsd_local.server.metrics import Counted, Metrics
from wsd_local.settings import LoadSettings


def figures(url: str) -> dict[str, float]:
    """Every figure by its name and labels."""
    text = httpx.get(f"{url}/metrics").text
    return {
        f"{sample.name}{dict(sorted(sample.labels.items()))}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def measured() -> Iterator[str]:
    """A whole server of the embedded pair with its figures."""
    metrics = Metrics()
    desk = Desk(["demo"], loading=LoadSettings(threads=1, parallel=2), observer=metrics)
    desk.start()
    with listening(Counted(Guard(create_app(desk, metrics)), metrics)) as url:
        yield url
    desk.close()


def test_a_reply_is_counted(measured: str) -> None:
    before = figures(measured)
    body = {"model": "demo", "messages": [{"role": "user", "content": "How do I boil an egg?"}], "max_tokens": 20}
    answers = [httpx.post(f"{measured}/v1/chat/completions", json=body).json() for _ in range(2)]
    after = figures(measured)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    kept = sum(answer["wsd"]["draft"]["kept_tokens"] for answer in answers)
    assert kept > 0
    assert grown("wsd_kept_tokens_total{'model': 'demo'}") == kept
    assert grown("wsd_written_tokens_total{'model': 'demo', 'source': 'base'}") == 40 - kept
    assert grown("wsd_requests_total{'model': 'demo'}") == 2
    assert grown("wsd_replies_total{'model': 'demo', 'outcome': 'length'}") == 2
    assert grown("wsd_http_answers_total{'protocol': 'openai', 'status': '200'}") == 2
    assert grown("wsd_first_text_seconds_count{'model': 'demo'}") == 2
    assert grown("wsd_queue_seconds_count{'model': 'demo'}") == 2
    assert grown("wsd_switch_confidence_count{'model': 'demo'}") == 2
    assert grown("wsd_switch_position_tokens_sum{'model': 'demo'}") == kept
    cached = sum(answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in answers)
    assert grown("wsd_cached_tokens_total{'model': 'demo', 'source': 'base'}") == cached > 0
    assert grown("wsd_prompt_tokens_total{'model': 'demo', 'source': 'base'}") == sum(
        answer["usage"]["prompt_tokens"] for answer in answers
    )


def test_scores_and_refusals_are_counted(measured: str) -> None:
    httpx.post(f"{measured}/v1/score", json={"requests": [{"tokens": [1, 2, 3, 4], "start": 1}]})
    httpx.post(f"{measured}/v1/score", json={"requests": [{"tokens": [1] * 9000, "start": 8999}]})
    httpx.post(f"{measured}/api/nothing", json={})
    found = figures(measured)
    assert found["wsd_scored_tokens_total{'model': 'demo'}"] == 3
    assert found["wsd_http_answers_total{'protocol': 'openai', 'status': '400'}"] == 1
    assert found["wsd_http_answers_total{'protocol': 'ollama', 'status': '404'}"] == 1


def test_what_is_true_at_the_moment(measured: str) -> None:
    found = figures(measured)
    assert found["wsd_slots{}"] == 2
    assert found["wsd_slots_busy{}"] == 0
    assert found["wsd_queue_requests{}"] == 0
    assert found["wsd_ready{}"] == 1
    assert found["wsd_model_loaded{'model': 'demo:base'}"] == 1


def test_outcomes() -> None:
    metrics = Metrics()
    metrics.watch(ScriptedService())
    reply = finished("a b c", kept="a", switch=Switch(2, "threshold", 0.83, 6, 0.8)).reply
    metrics.finished("demo", reply, 1.0)
    metrics.cancelled("demo", reply, 1.0)
    metrics.cancelled("demo", None, 1.0)
    metrics.failed("demo", FitError("too long"), 1.0)
    text = metrics.text("")[0].decode()
    for outcome, number in (("stop", 1), ("cancelled", 2), ("failed", 1)):
        assert f'wsd_replies_total{{model="demo",outcome="{outcome}"}} {number}.0' in text
    assert 'wsd_switch_confidence_bucket{le="0.8",model="demo"} 0.0' in text
    assert 'wsd_switch_confidence_bucket{le="0.85",model="demo"} 2.0' in text


def test_each_server_has_figures_of_its_own() -> None:
    first, second = Metrics(), Metrics()
    first.queued("demo")
    assert b'wsd_requests_total{model="demo"} 1.0' in first.text("")[0]
    assert b'wsd_requests_total{model="demo"}' not in second.text("")[0]


def test_the_newest_form_that_a_reader_accepts() -> None:
    assert Metrics().text("application/openmetrics-text; version=1.0.0")[1].startswith("application/openmetrics-text")
    assert Metrics().text("*/*")[1].startswith("text/plain")
