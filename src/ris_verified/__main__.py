"""`python -m ris_verified` is `ris-verified`."""

from __future__ import annotations

import sys

from ris_verified.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
