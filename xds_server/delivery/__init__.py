"""How a configuration gets to a proxy."""
