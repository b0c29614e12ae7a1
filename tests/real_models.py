"""The pair `tiny`: two real models that others trained, as shipped and as F32 copies.

Contract: the files are looked for in the folder that `WSD_TEST_MODELS` names, else where `make real` puts them; nothing
here fetches them. Without them a test is skipped, which CI does not accept. F32 copies are made once, beside the files.
`WSD_TEST_ALL=1` (`make real ALL=1`) asks for all of what is sampled otherwise. The fixtures are plugged in by
`conftest`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from exactness import PLAIN
from filelock import FileLock
from makers import f32_copy
from oracle import Oracle

from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings

HERE = Path(__file__).resolve().parents[1] / ".venv" / "real" / "data" / "models"
NAMES = ("smollm2-135m-instruct", "gemma-3-270m")
N_CTX = 2560
EXACT = LoadSettings(ctx=N_CTX, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
ALL = os.environ.get("WSD_TEST_ALL") == "1"

Files = tuple[Path, Path]


def models_folder() -> Path:
    """Where the models are, or should be."""
    return Path(os.environ.get("WSD_TEST_MODELS") or HERE)


@pytest.fixture(scope="session")
def shipped() -> Files:
    """Draft and base as they are fetched."""
    draft, base = (models_folder() / f"{name}.gguf" for name in NAMES)
    if not (draft.is_file() and base.is_file()):
        pytest.skip(f"the real models are not in {models_folder()}: make real fetches them")
    return draft, base


@pytest.fixture(scope="session")
def f32(shipped: Files) -> Files:
    """Copies with every tensor as F32: there the shape of a batch changes logits by less than 1e-4."""
    made = []
    for path in shipped:
        copy = path.with_name(f"{path.stem}-f32.gguf")
        with FileLock(copy.with_suffix(".lock")):
            if not copy.is_file():
                f32_copy(path, copy.with_suffix(".part")).replace(copy)
        made.append(copy)
    return made[0], made[1]


@pytest.fixture(scope="module")
def exact(f32: Files) -> Iterator[Pair]:
    """The engine under the conditions in which equality is asked for."""
    with Pair(draft=f32[0], base=f32[1], reply=PLAIN, loading=EXACT) as pair:
        yield pair


@pytest.fixture(scope="module")
def oracle(f32: Files) -> Iterator[Oracle]:
    """The three passes under the same conditions."""
    oracle = Oracle(*f32, n_ctx=N_CTX, threads=1)
    yield oracle
    oracle.close()
