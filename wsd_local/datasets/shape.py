"""The shape in which a run is worked on: with quantised weights, replies depend on it near ties.

Contract: `shape_of` is what a run's lines record, ready for JSON. A run that continues works in the recorded shape; how
many replies at once `auto` means is measured once for each pair, its settings and this program's llama.cpp, and
remembered in the cache folder, so that the same command makes the same file on the same machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from wsd_local.files import read_memory, write_memory
from wsd_local.llama.build import version
from wsd_local.paths import cache_dir
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.places import evaluation_shape
from wsd_local.settings import plain


def shape_of(models: LoadedModels, parallel: int) -> dict[str, Any]:
    """What a run's arithmetic depends on beside models and settings; `parallel` replies are in progress at once."""
    return {"parallel": parallel, **evaluation_shape(models)}


def recorded(lines: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Replies at once and sequences of a run, from what one of its lines was made by; None if it does not say."""
    shape = None if lines is None else lines.get("shape")
    if not isinstance(shape, Mapping):
        return None
    parallel, sequences = shape.get("parallel"), shape.get("sequences")
    if type(parallel) is not int or type(sequences) is not int or not 1 <= parallel <= sequences:
        return None
    return parallel, sequences


def remembered(models: LoadedModels, measure: Callable[[], int]) -> int:
    """The number of replies at once that pays, measured when it is not known yet. The models must be hashed."""
    traits = [version(), models.hashes, plain(models.loading), evaluation_shape(models)]
    key = hashlib.sha256(json.dumps(traits, sort_keys=True).encode()).hexdigest()
    path = cache_dir() / "parallel.json"
    known = read_memory(path)
    number = known.get(key)
    if type(number) is int and 1 <= number <= models.loading.parallel:
        return number
    number = measure()
    write_memory(path, known | {key: number})
    return number
