"""What the service over real pairs is doing, for health, figures, and whoever started it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from wsd_local.errors import WsdError
from wsd_local.runtime.run import Run
from wsd_local.server.engine import EngineRoom
from wsd_local.server.service import Slot, SlotPhase, State


class DeskStatus:
    """A `Status` of an engine room; `refusing` once no more requests are accepted."""

    def __init__(self, room: EngineRoom) -> None:
        self._room = room
        self.refusing = False

    @property
    def state(self) -> State:
        """Whether models are loaded for the first time, requests are answered, loading failed, or all ends."""
        return "ending" if self.refusing else self._room.state

    @property
    def progress(self) -> Mapping[str, Any]:
        """While models are loaded: `pair`, `role` of the model, and the loaded `fraction`."""
        return self._room.progress

    @property
    def failure(self) -> WsdError | None:
        """Why a pair could not be loaded, in full; what clients read names no files."""
        return self._room.failure

    @property
    def idle(self) -> bool:
        """Whether no request is in progress or waits."""
        return not self._room.outstanding

    def slots(self) -> list[Slot]:
        """What each place for a request in progress does; an idle one has the context of the loaded pair's base."""
        found: list[Slot] = []
        now, loaded = time.monotonic(), self._room.loaded
        for key, work in {} if loaded is None else loaded.crew.live.items():
            seconds = now - self._room.reporter.begun.get(key, now)
            phase: SlotPhase = "score"
            prompt = reply = 0
            if isinstance(work, Run):
                machine = work.machine
                phase = "draft" if machine.phase.value == "draft" else "continue"
                prompt, reply = machine.prompt_length, machine.reply_length
            n_ctx = loaded.n_ctx[work.job.writes] if loaded is not None else 0
            found.append(Slot(len(found), phase, key[0].model, prompt, reply, n_ctx, seconds))
        n_ctx = 0 if loaded is None else loaded.n_ctx["base"]
        return found + [Slot(index, n_ctx=n_ctx) for index in range(len(found), self._room.serving.loading.parallel)]

    @property
    def waiting(self) -> int:
        """Requests that are not over and not in progress."""
        in_progress = sum(slot.phase != "idle" for slot in self.slots())
        return max(0, sum(order.counts for order in self._room.outstanding) - in_progress)
