"""Entry point of `wsd-chat`."""

from __future__ import annotations

import sys


def main() -> None:
    """Say how to use `wsd-local run`: the terminal chat does not exist yet."""
    print('wsd-chat: the terminal chat is not there yet; ask with: wsd-local run "How do I boil an egg?"')
    sys.exit(1)


if __name__ == "__main__":
    main()
