"""The evaluation of a pair as one report: its parts, how time is divided among them, and the page."""
