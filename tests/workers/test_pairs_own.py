"""Workers that belong to one pair: its own settings, and no others' loading."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsd_local.config import read_config
from wsd_local.errors import UsageError
from wsd_local.server.served import Serving
from wsd_local.settings import LoadSettings, ReplySettings, split

PAIRS = """
[pairs.far]
draft = "demo-draft"
base = "demo-base"
[pairs.far.settings]
rpc = "a:1,b:2"
rpc-timeout = 60.0
threshold = 0.6
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(PAIRS, encoding="utf-8")
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(path))
    return path


def test_a_pair_has_workers_of_its_own(config: Path) -> None:
    reply, loading = split(read_config().settings_of("far"))
    assert (loading.rpc, loading.rpc_timeout, reply.threshold) == ("a:1,b:2", 60.0, 0.6)
    assert "rpc" not in read_config().settings_of("demo")


def test_a_server_loads_each_pair_with_its_workers(config: Path) -> None:
    serving = Serving.of(["far", "demo"], ReplySettings(), LoadSettings(ctx=512))
    assert serving.loading_of("far") == LoadSettings(ctx=512, rpc="a:1,b:2", rpc_timeout=60.0)
    assert serving.loading_of("demo") == LoadSettings(ctx=512)
    assert serving.reply_of("far").threshold == 0.6


@pytest.mark.parametrize("line", ['rpc = "nowhere"', "ctx = 512", 'rpc-timeout = "long"'])
def test_what_a_pair_cannot_have(config: Path, line: str) -> None:
    config.write_text(PAIRS.replace('rpc = "a:1,b:2"', line).replace("rpc-timeout = 60.0\n", ""), encoding="utf-8")
    with pytest.raises(UsageError, match=r"pairs\.far\.settings"):
        read_config()
