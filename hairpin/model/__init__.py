"""The model: environments, targets, matches, sessions. Pure values, no I/O."""
