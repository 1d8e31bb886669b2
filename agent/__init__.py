"""The in-cluster runtime: the Envoy that hands steered requests to laptops and their connections to the mesh."""
