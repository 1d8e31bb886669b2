"""Pure functions from the model to Envoy resources."""
