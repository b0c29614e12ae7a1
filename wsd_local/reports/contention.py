"""Other load on the processors while something was measured.

Contract: shares of all processors' time between two moments. Programs that this process started count as its own once
they have ended and were waited for. The host of a virtual machine is seen only where it reports what it took (Linux).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil

QUIET = 0.05
"""Share above which figures cannot be relied on."""
_IDLE = ("idle", "iowait")
_WITHIN = ("guest", "guest_nice")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Shares, from 0 to 1, that went to other programs and to the host of a virtual machine."""

    programs: float
    host: float

    @property
    def share(self) -> float:
        """Both together."""
        return self.programs + self.host

    def sentence(self) -> str:
        """A sentence to print below a table."""
        quiet = "" if self.share <= QUIET else ": too much for figures to be relied on; measure again when it is quiet"
        return (
            f"Meanwhile {self.programs:.0%} of the processors' time went to other programs and {self.host:.0%} to the "
            f"host of a virtual machine{quiet}."
        )


class Watch:
    """Watches the processors from now on."""

    def __init__(self) -> None:
        self._begun = _now()

    def elsewhere(self) -> Elsewhere:
        """Shares of the time since the watch began."""
        before, after = self._begun, _now()
        seconds, used, own, host = (late - early for early, late in zip(before, after, strict=True))
        whole = max(seconds * (os.cpu_count() or 1), 1e-9)
        return Elsewhere(min(1.0, max(0.0, used - own) / whole), min(1.0, max(0.0, host) / whole))


def _now() -> tuple[float, float, float, float]:
    """Seconds: of a clock, used by all programs, by this one, and by the host, of all processors together."""
    times = psutil.cpu_times()._asdict()
    host = float(times.pop("steal", 0.0))
    used = sum(seconds for name, seconds in times.items() if name not in (*_IDLE, *_WITHIN))
    return time.monotonic(), float(used), sum(os.times()[:4]), host
