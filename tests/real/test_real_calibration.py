"""Records of the real pair in F32: what is derived from them is what its replies do."""

from __future__ import annotations

import pytest

from wsd_local.calibration import Costs, Setting, derived
from wsd_local.calibration.recording import CONTINUATION, record
from wsd_local.prompts.messages import Message
from wsd_local.runtime.pair import Pair
from wsd_local.settings import changed

pytestmark = pytest.mark.real

SETTINGS = [Setting(threshold, window) for threshold in (0.3, 0.5, 0.8) for window in (3, 6, 12)]
LIMITS = {"draft_max_tokens": 64, "max_tokens": 80}


@pytest.mark.parametrize("question", ["Why is the sky blue?", "Give me ten ideas for a rainy day.", "Photosynthesis"])
def test_every_decision_is_that_of_a_real_reply(exact: Pair, question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "settings", changed(exact.settings, LIMITS))
    messages: list[Message] = [{"role": "user", "content": question}]
    made = record(exact, "one", messages, SETTINGS)
    assert len(made.tokens) > 20
    for setting in SETTINGS:
        reply = exact.reply(messages, threshold=setting.threshold, window=setting.window)
        found = derived(made, setting, Costs(), check_chunk=8, compared=CONTINUATION)
        assert found.index == reply.switch.index, setting
        assert found.checked == reply.counts.checked_tokens, setting
        kept = [token.id for token in reply.tokens if token.source == "draft"]
        assert tuple(kept) == made.tokens[: len(kept)], setting
