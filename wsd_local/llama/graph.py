"""Which tensors a computation reads.

Contract: follows the nodes of llama.cpp's graph as they are computed, and changes nothing. The layout of a node is that
of the installed llama.cpp.
"""

from __future__ import annotations

import ctypes

import llama_cpp

_DIMENSIONS, _PARAMETERS, _SOURCES, _LONGEST_NAME = 4, 16, 10, 64


class _Node(ctypes.Structure):
    """`struct ggml_tensor`."""


_Node._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * _DIMENSIONS),
    ("nb", ctypes.c_size_t * _DIMENSIONS),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * _PARAMETERS),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Node) * _SOURCES),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * _LONGEST_NAME),
]


class Reading:
    """Collects the names of the tensors that evaluations of a context read, while it is the context's `reading`."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._seen)

    def _seen(self, node: int, _ask: bool, _data: int | None) -> bool:
        for source in _Node.from_address(node).src:
            if source:
                self.names.add(source.contents.name.decode(errors="replace"))
        return False
