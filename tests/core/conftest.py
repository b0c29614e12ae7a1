"""The embedded pair in F32 and the three passes over the same files, for the tests of decisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from exactness import exact_oracle, exact_pair
from oracle import Oracle

from wsd_local.runtime.pair import Pair


@pytest.fixture(scope="module")
def pair(demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    with exact_pair(demo_f32) as pair:
        yield pair


@pytest.fixture(scope="module")
def oracle(demo_f32: tuple[Path, Path]) -> Iterator[Oracle]:
    oracle = exact_oracle(demo_f32)
    yield oracle
    oracle.close()
