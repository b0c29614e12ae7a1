"""What a threshold and a window would do to a pair's replies, derived from one recording of its drafts.

Contract: `records` are plain values, `deriving` is pure arithmetic over them; only `recording` works with models, and
`runs` keeps the records of many prompts in a file. `calibrate` and `eval sweep` share the records.
"""

from __future__ import annotations

from wsd_local.calibration.deriving import Costs, Derived, Setting, derived
from wsd_local.calibration.records import Continuation, Record

__all__ = [
    "Continuation",
    "Costs",
    "Derived",
    "Record",
    "Setting",
    "derived",
]
