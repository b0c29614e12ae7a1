"""What seconds are: of the clock on the wall, or of the processor.

The processor's time leaves out what a shared machine gave to others. Threads that wait for others spin and would count,
and what a GPU does would not: it is for one thread on a CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}


def add_clock(parser: argparse.ArgumentParser) -> None:
    """`--clock`."""
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="processor: its time, with --threads 1")


def require_one_thread(parser: argparse.ArgumentParser, clock: str, threads: int | None, gpu_layers: int = 0) -> None:
    """Refuse what the clock cannot tell."""
    if clock == "processor" and (threads != 1 or gpu_layers):
        parser.error("--clock processor needs --threads 1 and no GPU")
