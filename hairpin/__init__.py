"""hairpin's shared package: the model, certificates, managed Envoy processes, the command line.

It imports none of the programs (`xds_server`, `agent`, `local_proxy`); they import it.
"""

__version__ = "0.1.0"
