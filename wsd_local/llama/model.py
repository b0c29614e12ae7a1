"""Weights, vocabulary and metadata of one GGUF file.

Contract: `Model(path)` loads the file or raises `ModelError` with llama.cpp's own reason. Tokenising and pieces are
exact: bytes in, bytes out, control tokens only where they are asked for.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

from wsd_local.errors import CancelledError, ModelError
from wsd_local.library.gguf import look_at, read_header, read_model
from wsd_local.llama.logs import captured, cause, forward_logs
from wsd_local.llama.mapped import MappedFile
from wsd_local.settings import LoadMode

if TYPE_CHECKING:
    from wsd_local.llama.grammar import Matching

_CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
_HEADER_NAMES = {"unk": "unknown", "cls": "cls"}
"""Special tokens that llama.cpp does not tell, by their names in the header."""
_LSTRIP, _RSTRIP = llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP, llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP


class Model:
    """One loaded GGUF file.

    Args:
        path: the file.
        n_gpu_layers: layers to put on accelerators; -1 all of them, if the build can offload at all.
        split: names of the accelerators to use and how many of these layers each gets; empty leaves it to llama.cpp.
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
        n_gpu_layers: int = -1,
        split: Mapping[str, int] | None = None,
        progress: Callable[[float], bool] | None = None,
        load_mode: LoadMode = "auto",
        repack: bool = True,
        vocab_only: bool = False,
    ) -> None:
        self._handle: ctypes.c_void_p | None = None
        look_at(path)
        forward_logs()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers if n_gpu_layers >= 0 else 2**31 - 1
        params.load_mode = llama_cpp.llama_load_mode_from_str(load_mode.encode())
        params.use_extra_bufts = repack
        params.vocab_only = vocab_only
        chosen = _chosen(params, split or {})
        mapped = load_mode in ("auto", "mmap", "mmap+mlock") and not vocab_only
        self._file = MappedFile([header.path for header in read_model(path)]) if mapped else None
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
        self._pieces: dict[int, bytes] = {}
        self._matching: Matching | None = None
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
            self._matching = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
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

    @property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary: length of a row of logits."""
        return int(llama_cpp.llama_vocab_n_tokens(self.vocab))

    def adapter(self, path: Path) -> Any:
        """A LoRA adapter for this model, freed with it.

        Raises:
            ModelError: the file is missing, damaged, or an adapter of another model.
        """
        from wsd_local.library.adapters import check_adapter

        check_adapter(read_header(path), read_model(self.path))
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

    # -- vocabulary ------------------------------------------------------------------------------------------

    @property
    def bos(self) -> int | None:
        """The BOS token, None if the vocabulary asks for none."""
        return int(llama_cpp.llama_vocab_bos(self.vocab)) if llama_cpp.llama_vocab_get_add_bos(self.vocab) else None

    def tokenize(self, text: str) -> list[int]:
        """Tokens of `text` behind BOS (if the vocabulary asks for it). Control tokens' spellings stay text."""
        tokens = self.tokenize_text(text)
        return tokens if self.bos is None else [self.bos, *tokens]

    def tokenize_text(self, text: str) -> list[int]:
        """Tokens of `text` alone, all of it plain text."""
        if not text:
            return []
        data = text.encode()
        count = -len(data) - 2
        while count < 0:  # a negative count is the room that is needed
            buffer = np.empty(-count, dtype=np.int32)
            pointer = buffer.ctypes.data_as(llama_cpp.llama_token_p)
            count = llama_cpp.llama_tokenize(self.vocab, data, len(data), pointer, len(buffer), False, False)
        return list(map(int, buffer[:count].tolist()))

    def tokenize_template(self, text: str, mask: str) -> list[int]:
        """Tokens of a rendered chat template: intact spellings of control tokens become those tokens.

        `mask` is a character that message text carries inside such spellings; it is taken out of the text.
        """
        parts = self._control_pattern.split(text)
        tokens: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:
                tokens.append(self._control_tokens[part])
                continue
            if i and self._attributes(parts[i - 1]) & _RSTRIP:
                part = part.lstrip()
            if i + 1 < len(parts) and self._attributes(parts[i + 1]) & _LSTRIP:
                part = part.rstrip()
            tokens += self.tokenize_text(part.replace(mask, ""))
        return tokens if self.bos is None or tokens[:1] == [self.bos] else [self.bos, *tokens]

    def mask_controls(self, text: str, mask: str) -> str:
        """`text` with `mask` inside every spelling of a control token."""
        return self._control_pattern.sub(lambda match: match[0][0] + mask + match[0][1:], text)

    def _attributes(self, spelling: str) -> int:
        return int(llama_cpp.llama_vocab_get_attr(self.vocab, self._control_tokens[spelling]))

    @cached_property
    def _control_tokens(self) -> dict[str, int]:
        attribute = llama_cpp.llama_vocab_get_attr
        text = llama_cpp.llama_vocab_get_text
        found = (token for token in range(self.n_vocab) if attribute(self.vocab, token) & _CONTROL)
        return {spelling.decode(errors="replace"): token for token in found if (spelling := text(self.vocab, token))}

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        spellings = sorted(self._control_tokens, key=len, reverse=True)
        return re.compile("(" + ("|".join(map(re.escape, spellings)) or r"(?!)") + ")")

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; nothing for control tokens."""
        if token not in self._pieces:
            self._pieces[token] = self._piece(token, special=False)
        return self._pieces[token]

    def spelled(self, spellings: Collection[str]) -> dict[int, bytes]:
        """Those control tokens that are written in one of these ways, and how."""
        return {token: text.encode() for text, token in self._control_tokens.items() if text in spellings}

    def spelling(self, token: int) -> str:
        """How a token is written, control tokens too."""
        return self._piece(token, special=True).decode(errors="replace")

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:size]

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    def matching(self, check: Callable[[], None] = lambda: None) -> Matching:
        """The vocabulary as constraints need it; built when first asked for, while `check` is called now and then."""
        if self._matching is None:
            from wsd_local.llama.grammar import Matching

            self._matching = Matching(self, check)
        return self._matching

    @cached_property
    def eog_tokens(self) -> tuple[int, ...]:
        """All tokens that end a generation."""
        return tuple(token for token in range(self.n_vocab) if self.is_eog(token))

    @cached_property
    def control_tokens(self) -> tuple[int, ...]:
        """All control tokens that do not end a generation."""
        return tuple(token for token in self._control_tokens.values() if not self.is_eog(token))

    def special_spelling(self, name: str) -> str:
        """Spelling of the bos, eos, unk, sep, pad, cls or mask token as templates use it; empty if there is none."""
        if name in _HEADER_NAMES:
            number = self.metadata(f"tokenizer.ggml.{_HEADER_NAMES[name]}_token_id")
            token = int(number) if number is not None and number.isdecimal() else -1
            if name == "unk" and token < 0:
                token = self._unknown
        else:
            token = getattr(llama_cpp, f"llama_vocab_{name}")(self.vocab)
        return self.spelling(token) if 0 <= token < self.n_vocab else ""

    @cached_property
    def _unknown(self) -> int:
        """The token that the vocabulary marks as unknown text's, -1 if there is none."""
        attribute, unknown = llama_cpp.llama_vocab_get_attr, llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        return next((token for token in self._control_tokens.values() if attribute(self.vocab, token) & unknown), -1)


def _chosen(params: Any, split: Mapping[str, int]) -> tuple[Any, ...]:
    """Name the devices and their shares in `params`; the arrays must live until the model is loaded."""
    if not split:
        return ()
    from wsd_local.llama.devices import handle_of

    devices = (ctypes.c_void_p * (len(split) + 1))(*map(handle_of, split), None)
    shares = (ctypes.c_float * llama_cpp.llama_max_devices())(*map(float, split.values()))
    params.devices = ctypes.cast(devices, ctypes.c_void_p)
    params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
    return devices, shares
