"""Models on this machine and in the Hub."""
