"""`wsd_local.llama.trial FILE SIZE MODE [repack | vocabulary | ADAPTER]`: load a model, try it, print the error.

Contract: run in a process of its own by `wsd_local.library.vetting`, because llama.cpp ends the process where some
damaged files contradict themselves, and where its fast kernels crash, which `repack` tries too; of a `vocabulary` no
weights are loaded. Exit code 0: the file can be used; the output is then a JSON list of the adapter's tensors that were
read, else the reason. Memory beyond the file's size is limited where the system can.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import cast

from wsd_local.core.resources import LoadMode
from wsd_local.errors import WsdError
from wsd_local.llama import Cancellation, Context, ContextOptions, Model
from wsd_local.llama.graph import Reading
from wsd_local.llama.ranking import Ranker
from wsd_local.units import GIB

_FACTORS = (".lora_a", ".lora_b")
_ROOM = GIB
"""Bytes of memory of its own that a trial may take beside the file: a large vocabulary needs some hundred MiB."""


def trial(path: Path, mode: LoadMode, adapter: Path | None, *, repack: bool) -> list[str]:
    """Load the model in this way, with an adapter if there is one, and evaluate two tokens.

    Returns:
        The adapter's tensors that the evaluation read.

    Raises:
        WsdError: it cannot be loaded or used.
    """
    with Model(path, n_gpu_layers=0, load_mode=mode, repack=repack) as model:
        if model.ranks:
            ranker = Ranker(model, 64, 1, Cancellation())
            try:
                ranker.score([model.bos or 0, 0])
            finally:
                ranker.close()
            return []
        model.require_generator()
        lora = None if adapter is None else (adapter, 1.0)
        options = ContextOptions(n_ctx=64, n_batch=8, n_rows=2, threads=1, lora=lora)
        reading = None if adapter is None else Reading()
        context = Context(model, options, Cancellation(), reading)
        try:
            context.logprobs(0, [model.bos or 0, 0], 1)
        finally:
            context.close()
    return [] if reading is None else sorted(name for name in reading.names if name.endswith(_FACTORS))


def _limit_memory(size: int) -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (size + _ROOM, size + _ROOM))


def main() -> int:
    """Entry point."""
    path, size = Path(sys.argv[1]), int(sys.argv[2])
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.DEBUG, handlers=[handler], format="%(message)s")
    _limit_memory(size)
    try:
        if sys.argv[4:] == ["vocabulary"]:
            with Model(path, n_gpu_layers=0, vocab_only=True) as model:
                model.tokenize("a")
            return 0
        repack = sys.argv[4:] == ["repack"]
        adapter = Path(sys.argv[4]) if sys.argv[4:] and not repack else None
        read = trial(path, cast(LoadMode, sys.argv[3]), adapter, repack=repack)
    except WsdError as error:
        sys.stdout.write(str(error))
        return error.exit_code
    sys.stdout.write(json.dumps(read))
    return 0


if __name__ == "__main__":
    sys.exit(main())
