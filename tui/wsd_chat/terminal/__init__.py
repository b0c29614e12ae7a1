"""The terminal around the app: native output, signals, the clipboard, what may be drawn."""
