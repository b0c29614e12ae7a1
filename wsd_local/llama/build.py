"""Which llama.cpp is used."""

from __future__ import annotations

import os
from pathlib import Path

import llama_cpp


def version() -> str:
    """Version of llama-cpp-python, which names the llama.cpp that it binds."""
    return str(llama_cpp.__version__)


def library_folder() -> Path:
    """Folder of the shared libraries; `LLAMA_CPP_LIB_PATH` names another one."""
    return Path(os.environ.get("LLAMA_CPP_LIB_PATH") or Path(llama_cpp.__file__).parent / "lib")
