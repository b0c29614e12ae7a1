"""`python -m wsd_local` is `wsd-local`.

Contract: nothing more is imported from the working folder, which `-m` puts in front of all others.
"""

import os
import sys

if __name__ == "__main__":
    if sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109 - pathlib is not imported yet
        del sys.path[0]
    from wsd_local.cli import main

    main()
