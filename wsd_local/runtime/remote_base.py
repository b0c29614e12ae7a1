"""The base of a pair on a server, in place of a file: what `LoadedModels` needs of it.

Contract: as `llama_file.LlamaFile`. Texts are tokenised here, with a vocabulary that was compared with the server's: a
file that was named, one that the server offers, or the draft's own where it is the same. Nothing is sent to the server
before a reply needs it but fixed texts by which it is recognised.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsd_local.errors import ModelError, UsageError, WsdError
from wsd_local.files import HashProgress, replaced
from wsd_local.library.gguf import look_at, read_header
from wsd_local.library.resolve import model_path
from wsd_local.library.vetting import vet_vocabulary
from wsd_local.library.vocabulary_file import fingerprint
from wsd_local.llama import Cancellation, Model
from wsd_local.paths import cache_dir, make_folder
from wsd_local.placement.plan import DEFAULT_CTX, Plan
from wsd_local.remote.address import Address
from wsd_local.remote.context import RemoteContext
from wsd_local.remote.link import Check, Link
from wsd_local.remote.pace import Pace
from wsd_local.remote.probing import Found, recognised, timed, tried
from wsd_local.remote.servers.protocol import Server
from wsd_local.runtime.llama_file import LoadProgress
from wsd_local.settings import LoadSettings, ReplySettings

TEXTS = (
    "The quick brown fox jumps over 13 lazy dogs. ",
    "\n\n[User]\nHow do I boil an egg?\n\n[Assistant]\n",
    "naïve façade, 東京は晴れ, привет, مرحبا, 👩‍🚀🎉",
    "def f(x):\n    return {'a': [1, 2, 3.14159], \"b\": x ** 2}  # ok\n\t\n",
    "   leading, trailing   \n\n\n1234567890 1,000,000 2026-01-01 €5.99",
)
"""What two vocabularies are compared by; together with their sizes it told all that were tried apart."""
SHORTEST_CTX = 2048
"""Tokens of a context where a server does not say how many it takes."""
_MOST_VOCABULARY = 1 << 26


class RemoteModel(Model):
    """A model on a server: its vocabulary is here, its name is the server's.

    Raises:
        ModelError: the file that holds the vocabulary is damaged.
    """

    def __init__(self, vocabulary: Path, name: str, n_ctx: int) -> None:
        super().__init__(vocabulary, n_gpu_layers=0, vocab_only=True)
        self.vocabulary_file = vocabulary
        self.path = Path(name.rstrip("/") or "base")
        self._n_ctx = n_ctx

    @property
    def n_ctx_train(self) -> int:
        """Tokens that the server takes at once."""
        return self._n_ctx

    @property
    def is_recurrent(self) -> bool:
        """Nothing is taken back here."""
        return False

    def require_generator(self) -> None:
        """The server writes with it."""

    @property
    def chat_template(self) -> str | None:
        """That of the vocabulary's file says nothing about the server's model."""
        return None


class RemoteBase:
    """The base on a server.

    Args:
        address: where it is.
        loading: how the pair is loaded.
        draft: the draft's file, whose vocabulary may be the base's.
        check: raises what ends the waiting for the server.
    """

    def __init__(self, address: Address, loading: LoadSettings, draft: Path, check: Check) -> None:
        require_local_settings(loading)
        self.address = address
        self.path = Path(address.url)
        self.hashes: dict[str, str] = {}
        self.fingerprints: list[dict[str, Any]] = []
        self.pace = Pace()
        self.vocabulary_source = ""
        """Whose the vocabulary is, for people."""
        self._loading, self._draft, self._check = loading, draft, check
        self._link: Link | None = None
        self._found: Found | None = None
        self._server: Server | None = None
        self._vocabulary: Path | None = None

    # -- what a file has, too ----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Check what can be checked without the server.

        Raises:
            ModelError: the file with its vocabulary is missing or damaged.
        """
        if self._loading.base_vocab is not None:
            look_at(model_path(self._loading.base_vocab))

    def vet(self, progress: LoadProgress | None = None) -> None:
        """Recognise the server, and find the vocabulary; what was found before holds.

        Raises:
            WsdError: it cannot be reached, cannot be a base, or divides texts otherwise than every vocabulary here.
        """
        self.connect()

    def open(self, plan: Plan | None, progress: LoadProgress | None = None) -> Model:
        """The model; errors as of `vet`."""
        found, vocabulary = self.connect()
        model = RemoteModel(vocabulary, found.server.model, self.n_ctx)
        try:
            if self._server is None:
                assert self._link is not None
                server = found.server.with_vocabulary(model)
                tried(self._link, server, model.tokenize(TEXTS[0]), self._check)
                self._server = server
        except BaseException:
            model.close()
            raise
        if progress is not None:
            progress("base", 1.0)
        return model

    def vocabulary(self) -> Model:
        """The same as `open`: there are no weights."""
        return self.open(None)

    def context(self, model: Model, plan: Plan | None, stop: Cancellation) -> RemoteContext:
        """A context over the opened model."""
        assert self._link is not None and self._server is not None
        self._server = server = self._server.with_vocabulary(model)
        n_seq = self._loading.parallel if server.at_once else 1
        return RemoteContext(model, self._link, server, self.pace, n_ctx=self.n_ctx, n_seq=n_seq, stop=stop)

    def hash(self, progress: HashProgress | None = None) -> None:
        """A server's file has no hash here."""

    # -- the server --------------------------------------------------------------------------------------------------

    @property
    def n_ctx(self) -> int:
        """Tokens of a context: what the server takes, or less if that is wanted."""
        served = self.recognise().n_ctx
        wanted = self._loading.ctx or (SHORTEST_CTX if served is None else DEFAULT_CTX)
        return wanted if served is None else min(wanted, served)

    def recognise(self) -> Found:
        """What the server is.

        Raises:
            WsdError: it cannot be reached, or cannot be a base.
        """
        if self._found is None:
            self._link = self._link or Link(self.address)
            found = recognised(self._link, self._check)
            timed(self._link, found, self.pace, self._check)
            self._found = found
        return self._found

    def connect(self) -> tuple[Found, Path]:
        """What the server is, and the file with its vocabulary; errors as of `vet`."""
        found = self.recognise()
        if self._vocabulary is None:
            assert self._link is not None
            self._vocabulary = self._vocabulary_of(self._link, found)
        return found, self._vocabulary

    def check_chunk(self, least: int) -> int:
        """Tokens to be checked together; the round trip is measured again meanwhile."""
        if self._link is not None and self._found is not None:
            self._link.clock(self._found.alive, self.pace.saw)
        return self.pace.chunk(least)

    def require(self, settings: ReplySettings) -> None:
        """Raise `UsageError` for settings of a reply that need more of the base than a server gives."""
        if settings.mode == "draft":
            return
        needs = "the base's whole distribution" if settings.rule != "window" else "the base's logits"
        about = settings.rule if settings.rule != "window" else settings.constraint and settings.constraint.name
        if about:
            raise UsageError(
                f"{about}: needs {needs}, and {self.address.url} gives log-probabilities of given tokens alone; leave "
                "it out, or name a base on this machine",
                about="rule" if settings.rule != "window" else None,
            )
        if settings.sampling.penalises and not (server := self.recognise().server).penalises:
            raise UsageError(
                f"penalties of repeated tokens are given, and those of {server.kind} count other tokens: leave them out"
            )

    def described(self) -> dict[str, Any]:
        """What identifies the base, for provenance: there is no hash, and whoever serves it may change it."""
        if self._found is None:
            return {"url": self.address.url}
        found = self._found
        return {
            "url": self.address.url,
            "kind": found.server.kind,
            "version": found.version,
            "model": found.server.model,
            "vocabulary": None if self._vocabulary is None else fingerprint(read_header(self._vocabulary)),
        }

    def close(self) -> None:
        """End the connection."""
        if self._link is not None:
            self._link.close()

    # -- the vocabulary ----------------------------------------------------------------------------------------------

    def _vocabulary_of(self, link: Link, found: Found) -> Path:
        named = self._loading.base_vocab
        if named is not None:
            path = model_path(named)
            vet_vocabulary(path)
            if (text := self._different(link, found, path)) is not None:
                raise UsageError(
                    f"{path}: divides {text!r} otherwise than {found.server.model} at {link.url}: name a GGUF file "
                    "with the vocabulary of that model",
                    about="base_vocab",
                )
            self.vocabulary_source = "the named file"
            return path
        if found.vocabulary is not None:
            path = self._fetched(link, found.vocabulary)
            if self._different(link, found, path) is None:
                self.vocabulary_source = "the server's own"
                return path
        if self._different(link, found, self._draft) is None:
            self.vocabulary_source = "the draft's"
            return self._draft
        raise UsageError(
            f"{link.url}: the vocabulary of {found.server.model} is not here: name a GGUF file that has it with "
            "--base-vocab, a model of any size or a vocabulary without weights",
            about="base_vocab",
        )

    def _different(self, link: Link, found: Found, path: Path) -> str | None:
        """The first text that a file's vocabulary divides otherwise than the server; None if there is none."""
        look_at(path)
        server = found.server
        answers = link.ask_all([server.tokenize(text) for text in TEXTS], self._check)
        with Model(path, n_gpu_layers=0, vocab_only=True) as model:
            for text, answer in zip(TEXTS, answers, strict=True):
                if not server.divides(answer, text, model):
                    return text
        return None

    def _fetched(self, link: Link, place: str) -> Path:
        """The vocabulary that a server offers, kept by its hash."""
        data = link.ask_bytes(place, _MOST_VOCABULARY, self._check)
        folder = cache_dir() / "vocabularies"
        path = folder / f"{hashlib.sha256(data).hexdigest()}.gguf"
        if not path.exists():
            make_folder(folder)
            with replaced(path, private=True) as temporary:
                temporary.write_bytes(data)
        try:
            vet_vocabulary(path)
        except ModelError as error:
            with suppress(OSError):
                path.unlink()
            raise WsdError(f"{link.url} offers a vocabulary that is not usable: {error}") from error
        return path


def address_of(base: str | Path, loading: LoadSettings) -> Address:
    """The server that a base is given by.

    Raises:
        UsageError: the address is none, or the key cannot be sent to it.
    """
    return Address(str(base), loading.base_model, loading.base_api_key_env)


def require_no_server(loading: LoadSettings) -> None:
    """Raise `UsageError` for a setting of a server where the base is a file."""
    for name in ("base_model", "base_api_key_env", "base_vocab"):
        if getattr(loading, name) is not None:
            raise UsageError(
                f"{name.replace('_', '-')} is given, and the base is a file: it goes with --base http://HOST:PORT",
                about=name,
            )


def require_local_settings(loading: LoadSettings) -> None:
    """Raise `UsageError` for a setting of a base that is a file here."""
    given = {
        "rpc": loading.rpc is not None,
        "base_lora": loading.base_lora is not None,
        "base_n_gpu_layers": loading.base_n_gpu_layers is not None,
        "resident": loading.resident == "one",
    }
    for name, is_given in given.items():
        if is_given:
            spelled = name.replace("_", "-")
            raise UsageError(
                f"{spelled} is for a base on this machine, and --base is a server: leave it out", about=name
            )
