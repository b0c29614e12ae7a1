"""Pure decoding: no I/O, no llama.cpp, no clock."""
