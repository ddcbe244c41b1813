"""`python -m ris_verified.hpo` is `ris-verified hpo`."""

from __future__ import annotations

import sys

from ris_verified.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["hpo", *sys.argv[1:]]))
