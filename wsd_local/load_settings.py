"""How the models of a pair are loaded: the settings of memory, devices and machines.

Contract: as `wsd_local.settings`, of which this is a part.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from wsd_local.core.resources import UBATCH, CacheType, FlashAttention, LoadMode, require_threads
from wsd_local.errors import UsageError, short
from wsd_local.events import Source
from wsd_local.fields import FromFile, Heading, require_kinds, spelled
from wsd_local.system.rpc import endpoints

MOST_PARALLEL = 256
"""Sequences that llama.cpp can take."""
MOST = 2**31 - 1
"""The largest number of anything that llama.cpp counts."""
STRONGEST_LORA = 1000.0
NO_FOLDER = ("auto", "off")
OF_PAIR = ("threads", "ubatch", "flash_attn", "load_mode", "rpc", "rpc_timeout")
"""Settings of loading that a pair can have of its own in the configuration."""

MODELS = Heading("Models")
MACHINE = Heading("Machine")


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How both models are loaded.

    With `n_gpu_layers` of `auto` both models are placed together by `wsd_local.placement.plan`, which then also chooses
    what else is `auto`, and a smaller context where memory is short. A number counts layers, -1 all of them, and
    nothing is planned; the `draft_` and `base_` values win over the common one.

    Raises:
        UsageError: a value is of the wrong type or outside its range, or two values contradict each other.
    """

    draft_lora: Annotated[str | None, MODELS] = None
    """LoRA adapter (GGUF) for the draft."""
    draft_lora_scale: Annotated[float, MODELS] = 1.0
    """Scale of the draft's LoRA adapter."""
    base_lora: Annotated[str | None, MODELS] = None
    """LoRA adapter (GGUF) for the base."""
    base_lora_scale: Annotated[float, MODELS] = draft_lora_scale
    """Scale of the base's LoRA adapter."""
    base_model: Annotated[str | None, MODELS] = None
    """For a base on a server: the model's name there. [default: the only one]"""
    base_api_key_env: Annotated[str | None, MODELS] = None
    """For a base on a server: environment variable that holds its key."""
    base_vocab: Annotated[str | None, MODELS] = None
    """For a base on a server: GGUF file, or model by name, with the base's vocabulary. [default: what the server
    offers, else the draft's if it is the same]"""
    ctx: Annotated[int | None, MACHINE] = None
    """Context in tokens. [default: 4096, or what the model was trained for if that is less]"""
    threads: Annotated[int | None, MACHINE] = None
    """CPU threads. [default: all cores, half of them on machines with more than four]"""
    ubatch: Annotated[int | None, MACHINE] = None
    """Tokens of a prompt that are evaluated together. [default: by the model's width and the threads]"""
    n_gpu_layers: Annotated[int | Literal["auto"], MACHINE] = "auto"
    """Layers of each model on GPUs: a number, -1 for all, or auto: as wsd-local fit shows."""
    draft_n_gpu_layers: Annotated[int | None, MACHINE] = None
    """Layers of the draft on GPUs, instead of --n-gpu-layers."""
    base_n_gpu_layers: Annotated[int | None, MACHINE] = None
    """Layers of the base on GPUs, instead of --n-gpu-layers."""
    cache_type_k: Annotated[CacheType, MACHINE] = "auto"
    """Type of the cached keys."""
    cache_type_v: Annotated[CacheType, MACHINE] = cache_type_k
    """Type of the cached values."""
    flash_attn: Annotated[FlashAttention, MACHINE] = "auto"
    """Flash attention; auto: not for one reply on a CPU."""
    load_mode: Annotated[LoadMode, MACHINE] = "auto"
    """How files get into memory, by llama.cpp's names."""
    resident: Annotated[Literal["both", "one"], MACHINE] = "both"
    """Models in memory at the same time. With one of them the draft is written whole before the base is loaded: slower,
    the same reply."""
    rpc: Annotated[str | None, MACHINE] = None
    """Workers (wsd-local rpc-worker) whose memory takes layers too, as HOST:PORT, by commas."""
    rpc_timeout: Annotated[float, MACHINE] = 300.0
    """Seconds that one evaluation may take with --rpc; then the workers count as lost."""
    prompt_cache: Annotated[str, MACHINE, FromFile.PATH] = "auto"
    """Folder that keeps what the models have read of long prompts, for later processes; auto: one in the cache folder;
    off: none."""
    prompt_cache_size: Annotated[float, MACHINE] = 2.0
    """Most that this folder may take, in GB; never more than 5% of the free disk."""
    parallel: int = 1
    """Replies that can be in progress at the same time."""

    def __post_init__(self) -> None:
        require_kinds(self)
        most = {"parallel": (MOST_PARALLEL, "sequences"), "ubatch": (UBATCH, "tokens in an evaluation")}
        for name in ("ctx", *most):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: it must be at least 1")
            if value is not None and name in most and value > most[name][0]:
                raise UsageError("{} is {}: llama.cpp has at most {} {}".format(name, short(value), *most[name]))
        require_threads(self.threads)
        for name in ("n_gpu_layers", "draft_n_gpu_layers", "base_n_gpu_layers"):
            value = getattr(self, name)
            if isinstance(value, int) and value < -1:
                raise UsageError(f"{spelled(name)} is {short(value)}: it must be -1 (all) or more")
        require_counts(self)
        if not self.prompt_cache:
            raise UsageError("prompt-cache is empty: it must be auto, off, or a folder")
        self._require_rpc()
        if not 0 < self.prompt_cache_size <= MOST:
            raise UsageError(f"prompt-cache-size is {self.prompt_cache_size}: it counts GB and must be more than 0")
        for name in ("draft_lora_scale", "base_lora_scale"):
            if not -STRONGEST_LORA <= getattr(self, name) <= STRONGEST_LORA:
                raise UsageError(
                    f"{spelled(name)} is {getattr(self, name)}: it must lie between "
                    f"{-STRONGEST_LORA:g} and {STRONGEST_LORA:g}"
                )
            adapter = name.removesuffix("_scale")
            if getattr(self, name) != 1.0 and getattr(self, adapter) is None:
                raise UsageError(
                    f"{spelled(name)} is given without {spelled(adapter)}: name the adapter, or leave the scale out"
                )

    def _require_rpc(self) -> None:
        """Raise `UsageError` for workers that are named wrongly, or settings that do not go with them."""
        if not 0 < self.rpc_timeout <= MOST:
            raise UsageError(f"rpc-timeout is {self.rpc_timeout}: it counts seconds and must be more than 0")
        if self.rpc is None:
            return
        endpoints(self.rpc)
        if self.prompt_cache not in NO_FOLDER:
            raise UsageError(
                "prompt-cache and rpc are given: what workers hold is not kept on disk; leave one out", about="rpc"
            )

    def lora(self, role: Source) -> tuple[str, float] | None:
        """Adapter of one model, as it was named, and its scale."""
        name, scale = (
            (self.draft_lora, self.draft_lora_scale) if role == "draft" else (self.base_lora, self.base_lora_scale)
        )
        return None if name is None else (name, scale)

    @property
    def planned(self) -> bool:
        """Whether the models are placed by a plan, and not by numbers that were given."""
        return self.n_gpu_layers == "auto" and self.draft_n_gpu_layers is None and self.base_n_gpu_layers is None

    def gpu_layers(self, role: Source) -> int:
        """Layers of one model to put on accelerators where nothing is planned; -1 is all."""
        own = self.draft_n_gpu_layers if role == "draft" else self.base_n_gpu_layers
        common = -1 if self.n_gpu_layers == "auto" else int(self.n_gpu_layers)
        return common if own is None else own


def require_counts(settings: Any) -> None:
    """Raise `UsageError` for a number that llama.cpp could not even hold; seeds have bounds of their own."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, int) and value > MOST and not field.name.endswith("seed"):
            raise UsageError(f"{spelled(field.name)} is {short(value)}: it must be at most {MOST}")
