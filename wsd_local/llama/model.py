"""Weights and metadata of one GGUF file.

Contract: `Model(path)` loads the file or raises `ModelError` with llama.cpp's own reason. llama.cpp ends the process
on some damaged files and adapters, so callers check their headers first.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp

from wsd_local.core.resources import LoadMode
from wsd_local.errors import CancelledError, ModelError
from wsd_local.llama.logs import captured, cause, forward_logs
from wsd_local.llama.mapped import MappedFile
from wsd_local.llama.vocabulary import Vocabulary


class Model(Vocabulary):
    """One loaded GGUF file.

    Args:
        path: the file, the first one of a split model.
        parts: all files of a split model, if it is one.
        n_gpu_layers: layers to put on accelerators; -1 all of them, if the build can offload at all.
        split: names of the accelerators to use and how many of these layers each gets; empty leaves it to llama.cpp,
            but no layers at all never go to workers.
        progress: called with the loaded fraction, 0 to 1; returning False stops the loading.
        load_mode: how the file comes into memory, by llama.cpp's names.
        repack: let the CPU back end keep weights in the order that its kernels like best; with a mapped file that is
            a second copy.
        vocab_only: load the header and the vocabulary, and no weights.

    Raises:
        ModelError: the file is missing, not GGUF, damaged, or refused by llama.cpp.
    """

    def __init__(
        self,
        path: Path,
        *,
        parts: Sequence[Path] = (),
        n_gpu_layers: int = -1,
        split: Mapping[str, int] | None = None,
        progress: Callable[[float], bool] | None = None,
        load_mode: LoadMode = "auto",
        repack: bool = True,
        vocab_only: bool = False,
    ) -> None:
        self._handle: ctypes.c_void_p | None = None
        if not path.is_file():
            raise ModelError(f"{path}: no such file; check the path")
        forward_logs()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers if n_gpu_layers >= 0 else 2**31 - 1
        params.load_mode = llama_cpp.llama_load_mode_from_str(load_mode.encode())
        params.use_extra_bufts = repack
        params.vocab_only = vocab_only
        chosen = _chosen(params, split or {})
        mapped = load_mode in ("auto", "mmap", "mmap+mlock") and not vocab_only
        self._file = MappedFile(parts or [path]) if mapped else None
        stopped = False

        def report(fraction: float, _data: ctypes.c_void_p) -> bool:
            nonlocal stopped
            stopped = progress is not None and not progress(fraction)
            return not stopped

        params.progress_callback = llama_cpp.llama_progress_callback(report)
        with captured() as lines:
            self._handle = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        del chosen
        if stopped:
            self.close()
            raise CancelledError("stopped while loading")
        if not self._handle:
            self.check_file()
            raise ModelError(f"{path}: cannot be loaded: {cause(lines)}")
        self.path = path
        self.may_offload = n_gpu_layers != 0 and bool(llama_cpp.llama_supports_gpu_offload())
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._handle)
        try:
            self.check_file()
        except ModelError:
            self.close()
            raise

    # -- lifetime --------------------------------------------------------------------------------------------

    @property
    def handle(self) -> ctypes.c_void_p:
        """The native model."""
        if self._handle is None:
            raise RuntimeError(f"{self.path} is closed")
        return self._handle

    @property
    def vocab(self) -> Any:
        """The native vocabulary."""
        if self._handle is None:
            raise RuntimeError(f"{self.path} is closed")
        return self._vocabulary

    def check_file(self) -> None:
        """Raise `ModelError` if the file is mapped, and became shorter or unreadable since."""
        if self._file is not None:
            self._file.check()

    def close(self) -> None:
        """Free the weights. Contexts over them must be closed before."""
        if self._handle is not None:
            llama_cpp.llama_model_free(self._handle)
            self._handle = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- metadata --------------------------------------------------------------------------------------------

    def metadata(self, key: str) -> str | None:
        """A value of the GGUF header as text, None if the key is not there."""
        size = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, size + 1)
        return buffer.value.decode(errors="replace")

    @property
    def name(self) -> str:
        """The name in the header, else the file's."""
        return self.metadata("general.name") or self.path.stem

    @property
    def architecture(self) -> str:
        """Name of the architecture, as in `general.architecture`."""
        return self.metadata("general.architecture") or "unknown"

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template stored in the file."""
        template = llama_cpp.llama_model_chat_template(self.handle, None)
        return template.decode(errors="replace") if template else None

    @property
    def n_ctx_train(self) -> int:
        """Context length the model was trained for, in tokens."""
        known = int(llama_cpp.llama_model_n_ctx_train(self.handle))
        # A model that is its vocabulary alone does not know.
        return known or int(self.metadata(f"{self.architecture}.context_length") or 0)

    @property
    def n_embd(self) -> int:
        """Width of the residual stream."""
        return int(llama_cpp.llama_model_n_embd(self.handle))

    def adapter(self, path: Path) -> Any:
        """A LoRA adapter for this model, freed with it.

        llama.cpp ends the process on some adapters of other models, so callers compare the headers first.

        Raises:
            ModelError: llama.cpp refuses the file.
        """
        with captured() as lines:
            adapter = llama_cpp.llama_adapter_lora_init(self.handle, os.fsencode(path))
        if not adapter:
            raise ModelError(f"{path}: is no adapter for {self.name}: {cause(lines)}")
        return adapter

    @cached_property
    def is_recurrent(self) -> bool:
        """Whether the model, or a part of it, keeps one state instead of a cache of tokens."""
        return bool(llama_cpp.llama_model_is_recurrent(self.handle) or llama_cpp.llama_model_is_hybrid(self.handle))

    @property
    def n_swa(self) -> int:
        """Tokens of the sliding window; 0 if no layer has one."""
        return int(llama_cpp.llama_model_n_swa(self.handle))

    @property
    def ranks(self) -> bool:
        """Whether the model has a head that scores a whole text, as reward models and rerankers have."""
        return self.metadata(f"{self.architecture}.pooling_type") == str(llama_cpp.LLAMA_POOLING_TYPE_RANK)

    def require_generator(self) -> None:
        """Raise `ModelError` unless this model can write text."""
        causal = self.metadata(f"{self.architecture}.attention.causal")
        pooling = self.metadata(f"{self.architecture}.pooling_type")
        if llama_cpp.llama_model_has_encoder(self.handle):
            raise ModelError(
                f"{self.path}: is an encoder-decoder model ({self.architecture}); choose a decoder-only one"
            )
        if causal == "false" or pooling not in (None, "0") or not llama_cpp.llama_model_has_decoder(self.handle):
            raise ModelError(
                f"{self.path}: is an embedding model ({self.architecture}), which cannot write text; "
                "choose a text-generation model"
            )


def _chosen(params: Any, split: Mapping[str, int]) -> tuple[Any, ...]:
    """Name the devices and their shares in `params`; the arrays must live until the model is loaded."""
    if not split and params.n_gpu_layers == 0:
        return _without_workers(params)
    if not split:
        return ()
    from wsd_local.llama.devices import handle_of

    devices = (ctypes.c_void_p * (len(split) + 1))(*map(handle_of, split), None)
    shares = (ctypes.c_float * llama_cpp.llama_max_devices())(*map(float, split.values()))
    params.devices = ctypes.cast(devices, ctypes.c_void_p)
    params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
    return devices, shares


def _without_workers(params: Any) -> tuple[Any, ...]:
    """Leave the devices of workers out, if there are any: llama.cpp would make each a part of every evaluation."""
    from wsd_local.llama.devices import handle_of, offload_names

    names = offload_names()
    here = [name for name in names if not name.startswith("RPC")]
    if here == names:
        return ()
    devices = (ctypes.c_void_p * (len(here) + 1))(*map(handle_of, here), None)
    params.devices = ctypes.cast(devices, ctypes.c_void_p)
    return (devices,)
