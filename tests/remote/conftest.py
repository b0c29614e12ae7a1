"""A server of our own with the exact embedded pair, for all tests of a base that is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from exactness import EXACT
from serving import desk_of


@pytest.fixture(scope="session")
def base_server(demo_f32: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with the F32 pair, whose answers do not depend on the shape of a batch."""
    loading = replace(EXACT, parallel=2)
    with desk_of(demo_f32, loading, tmp_path_factory.mktemp("base server")) as url:
        yield url
