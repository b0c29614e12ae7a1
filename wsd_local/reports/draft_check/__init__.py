"""Whether a GGUF file is the model that was trained: measured, judged, shown."""
