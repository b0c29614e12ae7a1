"""Names: what stands for a model, and what is said of one that stands for none."""

from __future__ import annotations

import pytest

from wsd_local.errors import ModelError
from wsd_local.library.catalog import catalog_models, catalog_pairs
from wsd_local.library.resolve import model_path


def test_a_pair_is_no_model() -> None:
    pairs = [pair for pair in catalog_pairs().values() if pair.name not in catalog_models()]
    assert pairs
    for pair in pairs:
        with pytest.raises(ModelError, match=f"{pair.name} is a pair.*: {pair.draft} or {pair.base}$"):
            model_path(pair.name)


def test_known_names_are_listed_once() -> None:
    with pytest.raises(ModelError) as caught:
        model_path("zzzzzzzz")
    listed = str(caught.value).partition("known are ")[2].split(", ")
    assert len(listed) == len({*listed}) and {*catalog_models()} <= {*listed}
