"""The pairs that are served, and the names by which clients know their models.

Contract: a value read off the configuration; nothing is loaded. A pair `p` is the models `p`, `p:base` and `p:draft`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsd_local.config import read_config
from wsd_local.errors import ModelError, UsageError, nearest
from wsd_local.events import Source
from wsd_local.files import known_sha256
from wsd_local.library.catalog import PairEntry
from wsd_local.library.description import describe
from wsd_local.library.gguf import read_model
from wsd_local.library.naming import readable_name
from wsd_local.library.resolve import model_of_pair, named_pair
from wsd_local.remote.address import is_address
from wsd_local.server.service import Mode, ModelFacts, ServedModel, UnknownModelError
from wsd_local.settings import OF_PAIR, LoadSettings, ReplySettings, changed

_MODES: tuple[Mode, ...] = ("wsd", "base", "draft")


@dataclass(frozen=True, slots=True)
class Serving:
    """What a service offers, and how.

    Args:
        pairs: by name, in the order in which they were given; the first is loaded at the start.
        models: by the names of clients; none of them is loaded.
        reply: defaults of every reply; a pair's own settings override them.
        loading: how models are loaded, unless a pair's own settings say otherwise; `parallel` is the number of requests
            in progress at once.
    """

    pairs: Mapping[str, PairEntry]
    models: Mapping[str, ServedModel]
    reply: ReplySettings
    loading: LoadSettings

    @classmethod
    def of(cls, pairs: Sequence[str | PairEntry], reply: ReplySettings, loading: LoadSettings) -> Serving:
        """What these pairs offer; names are those of the catalog and of the user's configuration.

        Raises:
            UsageError: there is no such pair, or none is given.
            ModelError: a model is not on this machine.
        """
        own = read_config().pairs
        entries = [pair if isinstance(pair, PairEntry) else named_pair(pair, own) for pair in pairs]
        if not entries:
            raise UsageError("no pair is given to be served")
        for entry in entries:
            if ":" in entry.name:
                raise UsageError(f"the pair {entry.name!r} cannot be served: its name has a colon in it")
        models = {model.id: model for entry in entries for model in _models(entry)}
        serving = cls({entry.name: entry for entry in entries}, models, reply, loading)
        for name in serving.pairs:
            serving.reply_of(name), serving.loading_of(name)
        return serving

    def reply_of(self, pair: str) -> ReplySettings:
        """Defaults of the replies of one pair.

        Raises:
            UsageError: the pair's own settings contradict the common ones.
        """
        own = self.pairs[pair].settings
        try:
            return changed(self.reply, {name: value for name, value in own.items() if name not in OF_PAIR})
        except UsageError as error:
            raise UsageError(f"pairs.{pair}.settings: {error}") from error

    def loading_of(self, pair: str) -> LoadSettings:
        """How the models of one pair are loaded."""
        own = self.pairs[pair].settings
        return changed(self.loading, {name: value for name, value in own.items() if name in OF_PAIR})

    def find(self, model: str) -> tuple[str, Mode]:
        """The pair and the mode that a client's name of a model stands for.

        Raises:
            UnknownModelError: no such model is served; the nearest name is suggested.
        """
        if model not in self.models:
            raise UnknownModelError(f"there is no model {model!r} here{nearest(model, list(self.models))}")
        return self.models[model].pair, self.models[model].mode

    def facts(self, model: str) -> dict[Source, ModelFacts]:
        """What the files of a model's parts state.

        Raises:
            UnknownModelError: no such model is served.
            ModelError: a file is damaged.
        """
        pair, mode = self.find(model)
        try:
            files = files_of(self.pairs[pair])
        except ModelError:
            return {}
        return {role: _facts(files[role]) for role in _roles(mode) if role in files}


def files_of(entry: PairEntry) -> dict[Source, Path]:
    """The files of a pair's models; a base on a server has none.

    Raises:
        ModelError: one is not on this machine.
    """
    files: dict[Source, Path] = {"draft": model_of_pair(entry, entry.draft)}
    return files if is_address(entry.base) else {**files, "base": model_of_pair(entry, entry.base)}


def _models(entry: PairEntry) -> list[ServedModel]:
    files, found = files_of(entry), []
    for mode in _MODES:
        here = [role for role in _roles(mode) if role in files]
        sizes = [_stat(files[role]) for role in here]
        hashes = {role: known_sha256(files[role]) for role in here if files[role].exists()}
        found.append(
            ServedModel(
                id=entry.name if mode == "wsd" else f"{entry.name}:{mode}",
                pair=entry.name,
                mode=mode,
                created=max((time for _, time in sizes), default=0),
                size=sum(size for size, _ in sizes),
                names={role: _name(entry, files, role) for role in _roles(mode)},
                sha256={role: sha256 for role, sha256 in hashes.items() if sha256 is not None},
            )
        )
    return found


def _name(entry: PairEntry, files: Mapping[Source, Path], role: Source) -> str:
    return readable_name(files[role], None) if role in files else str(entry.server.get("base_model") or entry.base)


def _roles(mode: Mode) -> tuple[Source, ...]:
    return ("draft", "base") if mode == "wsd" else (mode,)


def _facts(path: Path) -> ModelFacts:
    found = describe(read_model(path))
    return ModelFacts(
        name=found.name,
        architecture=found.architecture,
        parameters=found.parameters,
        quantization=found.quantization,
        n_ctx_train=found.n_ctx_train,
        n_embd=found.n_embd,
        n_layers=found.n_layers,
        template=found.template,
        licence=found.licence,
    )


def _stat(path: Path) -> tuple[int, int]:
    """A file's size in bytes, and when it was changed, in seconds since 1970; 0 and 0 if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, int(found.st_mtime)
