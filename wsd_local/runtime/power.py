"""Whether this machine runs on its battery."""

from __future__ import annotations


def on_battery() -> bool:
    """True only where there is a battery, and no charger."""
    import psutil

    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError):
        return False
    return battery is not None and battery.power_plugged is False
