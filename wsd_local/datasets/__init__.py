"""Data sets, read from files and answered record by record.

Contract: `read` reports what is wrong with a file as a whole before any work, with the line; a record that alone is
wrong stands among the `bad` ones. `public` knows the published sets by name, and fetches them.
"""

from __future__ import annotations

from wsd_local.datasets.formats import FORMATS, record_of
from wsd_local.datasets.items import BadRecord, DataSet, Item
from wsd_local.datasets.public import PublicSet, catalog_datasets, dataset_path
from wsd_local.datasets.reading import parse_shard, read

__all__ = [
    "FORMATS",
    "BadRecord",
    "DataSet",
    "Item",
    "PublicSet",
    "catalog_datasets",
    "dataset_path",
    "parse_shard",
    "read",
    "record_of",
]
