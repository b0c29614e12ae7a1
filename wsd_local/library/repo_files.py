"""The contents of a repository of the Hub, from the names of its files, and the names of its models on this machine.

Contract: nothing is fetched and no file is opened. Names of repositories and of files in them are not trusted.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

from wsd_local.errors import ModelError, UsageError
from wsd_local.library.registry import Known, is_file_name
from wsd_local.library.resolve import is_catalog_name, models_of

PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q6_K", "Q8_0")
"""What is taken of several quantisations if none is named and the catalog names none."""

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.IGNORECASE)
_PIECE = re.compile(r"(?P<stem>.+)\.gguf[.-](part|split)[.-]?(\d+of\d+|[a-z]{1,2}|\d+)", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|^imatrix|imatrix\.gguf$", re.IGNORECASE)
_QUANT = re.compile(r"(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4\w*))(?=$|[-.])", re.IGNORECASE)
_DESCRIBING = ("*.json", "*.jinja", "*.model", "tokenizer*", "merges.txt", "vocab.txt")
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_WEIGHTS: tuple[tuple[str, ...], ...] = (("model*.safetensors",), ("pytorch_model*.bin",))


# -- models ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gguf:
    """One model among the files of a repository: a GGUF file, or the parts of a split one in their order."""

    stem: str
    files: tuple[str, ...]
    parts: int = 1

    @property
    def label(self) -> str:
        """Its quantisation if the name holds it, else the name."""
        found = _QUANT.findall(self.stem.rpartition("/")[2])
        return str(found[-1]).upper() if found else self.files[0]

    def matches(self, wanted: str) -> bool:
        """Whether a person means it by a quantisation, a file's name, or its path in the repository."""
        wanted, stem = wanted.lower(), self.stem.lower()
        names = {name for path in self.files for name in (path.lower(), path.lower().rpartition("/")[2])}
        ends = re.search(rf"(?:^|[-._/]){re.escape(wanted)}$", stem) is not None
        return wanted in names or wanted == self.label.lower() or ends


def models_in(paths: Iterable[str]) -> list[Gguf]:
    """Models among the paths of a repository; projectors and importance matrices are none."""
    found: dict[tuple[str, int], dict[int, str]] = {}
    for path in sorted(paths):
        if not path.lower().endswith(".gguf") or _NO_MODEL.search(path.rpartition("/")[2]):
            continue
        if (part := _SPLIT.fullmatch(path)) is not None:
            found.setdefault((part["stem"], int(part["parts"])), {})[int(part["part"])] = path
        else:
            found[path[: -len(".gguf")], 1] = {1: path}
    return [Gguf(stem, tuple(files[i] for i in sorted(files)), parts) for (stem, parts), files in found.items()]


def choose(repo: str, paths: Sequence[str], wanted: str | None = None) -> Gguf:
    """The model that is meant: the one `wanted` names (quantisation or file).

    Without `wanted`: the only one; else the catalog's; else the first quantisation of `PREFERRED` that is there once.

    Raises:
        ModelError: there is none, several could be meant, or parts are missing; the message lists what is there.
    """
    models = models_in(paths)
    pieces = sorted({piece["stem"] for path in paths if (piece := _PIECE.fullmatch(path)) is not None})
    if wanted is None:
        meant = models if len(models) == 1 else _by_default(repo, models)
    else:
        meant = [model for model in models if wanted in model.files] or [m for m in models if m.matches(wanted)]
    if len(meant) == 1:
        if len(meant[0].files) != meant[0].parts:
            raise ModelError(f"{repo}: {meant[0].stem} is split into {meant[0].parts} parts, and some are not there")
        return meant[0]
    cut = pieces if wanted is None else [one for one in pieces if Gguf(one, (one,)).matches(_whole(wanted))]
    if cut and not (meant or (wanted is None and models)):
        others = f"; take another: {_listed(models)}" if models else ""
        raise ModelError(f"{repo}: {cut[0]} is cut into pieces that only a person can join{others}")
    if not models:
        raise ModelError(_without_gguf(repo, paths))
    if wanted is None:
        raise ModelError(f"{repo} holds several models; name one, as {repo}:{{one of}} {_listed(models)}")
    if meant:
        names = ", ".join(model.files[0] for model in meant)
        raise ModelError(f"{repo}: {wanted!r} could be {names}; name the file, as {repo}:{meant[0].files[0]}")
    raise ModelError(f"{repo} has no {wanted!r}; it has {_listed(models, wanted)}")


def _by_default(repo: str, models: list[Gguf]) -> list[Gguf]:
    ours = [entry.file for entry in models_of(repo)]
    for file in ours:
        if named := [model for model in models if file in model.files]:
            return named
    for quantization in PREFERRED:
        if len(fitting := [model for model in models if model.label == quantization]) == 1:
            return fitting
    return []


def _listed(models: list[Gguf], wanted: str = "") -> str:
    """The models, nearest first; by name where two have the same quantisation."""
    labels = [model.label for model in models]
    shown = [label if labels.count(label) == 1 else model.files[0] for label, model in zip(labels, models, strict=True)]
    if wanted:
        shown.sort(key=lambda one: -difflib.SequenceMatcher(None, one.lower(), wanted.lower()).ratio())
    return ", ".join(shown[:15]) + (f" and {len(shown) - 15} more" if len(shown) > 15 else "")


def _without_gguf(repo: str, paths: Sequence[str]) -> str:
    if any(path.endswith((".safetensors", ".bin")) for path in paths):
        return f"{repo} holds no GGUF file but a checkpoint; convert it with: wsd-local models convert {repo}"
    return f"{repo} holds no GGUF file: name a repository that does, or a checkpoint to wsd-local models convert"


def _whole(name: str) -> str:
    """The name of a file that was cut into pieces, from that of a piece."""
    return re.sub(r"\.gguf.*", "", name, flags=re.IGNORECASE)


# -- checkpoints -------------------------------------------------------------------------------------------------


def checkpoint_files(repo: str, paths: Iterable[str], *, adapters: bool = False) -> tuple[str, ...]:
    """The checkpoint at the top of a repository: what describes it, then its weights; no code.

    The weights are safetensors, or PyTorch's files if there are none. With `adapters` a LoRA adapter will do.

    Raises:
        ModelError: there is none.
    """
    top = [path for path in paths if "/" not in path and not path.endswith(".py")]
    described = _fitting(top, _DESCRIBING)
    for patterns in _WEIGHTS:
        weights = _fitting(top, patterns)
        if weights and "config.json" in described:
            return (*described, *weights)
    if set(_ADAPTER) <= set(top):
        if adapters:
            return _ADAPTER
        raise ModelError(f"{repo}: holds a LoRA adapter, and a whole model is wanted")
    raise ModelError(f"{repo}: holds no checkpoint: config.json and *.safetensors; models pull fetches GGUF files")


def _fitting(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


# -- names -------------------------------------------------------------------------------------------------------


def names_repository(text: str) -> bool:
    """Whether a text has the form OWNER/NAME."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_url(text, "file")
    except HFValidationError:
        return False
    return "/" in text


def checked_repository(repo: str) -> str:
    """The name of a repository.

    Raises:
        UsageError: it is none.
    """
    if not names_repository(repo):
        raise UsageError(
            f"{repo!r} names no repository: give a pair, a model, OWNER/NAME, OWNER/NAME:Q4_K_M or OWNER/NAME:FILE.gguf"
        )
    return repo


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-1 or SHA-256 in hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) is not None


def is_safe(path: str) -> bool:
    """Whether a path of a repository stays inside it on every system, and can be shown."""
    return path.isprintable() and not re.search(r'[\\:*?"<>|]', path) and all(map(is_file_name, path.split("/")))


def name_for(repo: str, model: Gguf, here: Mapping[str, Known]) -> str:
    """The catalog's name of a model, else one made of its file's that nothing else has.

    `here` are the models that are known by name.
    """
    for entry in models_of(repo):
        if entry.file in model.files:
            return entry.name
    files = [path.rpartition("/")[2] for path in model.files]
    plain = re.sub(r"[^a-z0-9._+-]+", "-", model.stem.rpartition("/")[2].lower()).strip("-.") or "model"
    owner = re.sub(r"[^a-z0-9._+-]+", "-", repo.partition("/")[0].lower())
    for name in chain((plain, f"{plain}-{owner}"), (f"{plain}-{owner}-{i}" for i in count(2))):
        other = here.get(name)
        same = other is not None and other.repo == repo and [path.name for path in other.paths] == files
        if same or (other is None and not is_catalog_name(name) and is_file_name(name)):
            return name
    raise AssertionError("unreachable")
