"""The machine around the program: child processes, text from and to outside, HTTP, extras."""
