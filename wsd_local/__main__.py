"""`python -m wsd_local` is `wsd-local`."""

from wsd_local.cli import main

if __name__ == "__main__":
    main()
