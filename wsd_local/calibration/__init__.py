"""What a threshold and a window would do to a pair's replies, derived from one recording of its drafts.

Contract: `records` are plain values, `deriving` and `recommending` are pure arithmetic over them; only `recording`
works with models. `eval` and `calibrate` share the records.
"""

from __future__ import annotations

from wsd_local.calibration.deriving import Costs, Derived, Setting, derived
from wsd_local.calibration.recommending import Calibration, Recommendation, Row, calibrated
from wsd_local.calibration.records import Continuation, Record

__all__ = [
    "Calibration",
    "Continuation",
    "Costs",
    "Derived",
    "Recommendation",
    "Record",
    "Row",
    "Setting",
    "calibrated",
    "derived",
]
