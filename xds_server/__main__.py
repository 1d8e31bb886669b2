"""`python -m xds_server --config FILE`: the control plane, of an embedded mesh or (`--kubernetes`) of a cluster."""

from __future__ import annotations

import sys

from xds_server.server.main import main

if __name__ == "__main__":
    sys.exit(main())
