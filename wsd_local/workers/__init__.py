"""Other machines: workers of llama.cpp's RPC, being one, and the process that uses them."""
