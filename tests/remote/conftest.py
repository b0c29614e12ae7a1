"""A server of our own with the exact embedded pair, for all tests of a base that is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from exactness import EXACT, PLAIN
from serving import desk_of
from stand_ins import Base

from wsd_local.remote.address import Address
from wsd_local.runtime.pair import Pair


@pytest.fixture(scope="session")
def base_server(demo_f32: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with the F32 pair, whose answers do not depend on the shape of a batch."""
    loading = replace(EXACT, parallel=2)
    with desk_of(demo_f32, loading, tmp_path_factory.mktemp("base server")) as url:
        yield url


@pytest.fixture(scope="session")
def real_base(demo_f32: tuple[Path, Path]) -> Iterator[Base]:
    """What the stand-ins of other servers evaluate with."""
    base = Base(demo_f32[1])
    yield base
    base.close()


@pytest.fixture(scope="session")
def here(demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    """The exact pair on this machine."""
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=PLAIN, loading=EXACT) as pair:
        yield pair


@pytest.fixture(scope="session")
def there(demo_f32: tuple[Path, Path], base_server: str) -> Iterator[Pair]:
    """The exact pair with its base on a server of our own."""
    with Pair(draft=demo_f32[0], base=Address(base_server), reply=PLAIN, loading=EXACT) as pair:
        yield pair
