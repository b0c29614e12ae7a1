"""Which pair answers: loading it in the models' thread, in place of the one before.

Contract: one pair is loaded at a time; another choice stops the loading that is in progress.
"""

from __future__ import annotations

from functools import partial

from wsd_chat.model_jobs import Loaded, Loading, Wanted, load_pair
from wsd_chat.next_settings import NextSettings
from wsd_chat.view import View
from wsd_chat.widgets.greeting import greeting
from wsd_local.runtime.worker import Task, TaskFailed, Worker


class PairLoading:
    """The pair that was chosen, and the task that loads it."""

    def __init__(self, view: View, models: Worker, settings: NextSettings, wanted: Wanted) -> None:
        self.wanted = wanted
        self._view, self._models, self._settings = view, models, settings
        self._task: Task | None = None

    @property
    def in_progress(self) -> bool:
        """Whether a pair is being loaded."""
        return self._task is not None

    @property
    def idle_phase(self) -> str:
        """What the status line says while no model works."""
        return "loading" if self._task is not None else "no pair" if self._models.pair is None else "ready"

    def load(self, wanted: Wanted) -> None:
        """Load a pair."""
        self.stop()
        self.wanted = wanted
        self._settings.own = wanted.in_effect
        status = self._view.status
        status.pair, status.phase, status.progress = wanted.name, "loading", None
        status.bound = self._settings.bound
        self._task = self._models.submit(partial(load_pair, wanted=wanted))

    def stop(self) -> None:
        """Stop the loading that is in progress."""
        if self._task is not None:
            self._models.stop(self._task)

    def advanced(self, news: Loading) -> None:
        """A part of a model is loaded."""
        self._view.status.phase = f"loading the {news.role} {news.fraction:.0%}"

    def loaded(self, news: Loaded, title: str) -> None:
        """The pair can answer; `title` is that of the chat that is open."""
        self._task = None
        self._view.status.phase = "ready"
        if not title:
            self._view.sub_title = news.name
        self._view.transcript.greet(greeting(news, self.wanted))
        for note in news.notes:
            self._view.say(note, "warning")

    def failed(self, news: TaskFailed) -> bool:
        """Whether it was the loading that failed; then no pair is loaded."""
        if news.task is not self._task:
            return False
        self._task = None
        self._view.status.phase = "no pair"
        return True
