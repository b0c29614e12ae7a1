"""How many replies at once memory has room for.

Contract: asks the memory plan, and gives nothing up for more replies; `wsd_local.runtime.throughput` measures how many
of them pay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from wsd_local.errors import FitError
from wsd_local.events import Source
from wsd_local.placement.fit import footprints, placed
from wsd_local.settings import LoadSettings

MOST_ON_CPU, MOST_ON_GPU = 16, 64


def most_replies(paths: Mapping[Source, Path], loading: LoadSettings, wanted: int) -> int:
    """The most replies at once, at most `wanted`, for which nothing has to be given up.

    Raises:
        FitError: not even one has room.
    """
    models = footprints(paths)
    alone = placed(models, replace(loading, parallel=1))
    most = MOST_ON_GPU if alone.machine.devices else MOST_ON_CPU
    number = 1
    while number * 2 <= most and number < wanted:
        try:
            plan = placed(models, replace(loading, parallel=number * 2))
        except FitError:
            break
        if (plan.given_up, plan.speed_given_up) != (alone.given_up, alone.speed_given_up):
            break
        number *= 2
    return number
