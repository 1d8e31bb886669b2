"""`python -m hairpin`: the same as the command `hairpin`."""

from __future__ import annotations

import sys

from hairpin.cli import main

if __name__ == "__main__":
    sys.exit(main())
