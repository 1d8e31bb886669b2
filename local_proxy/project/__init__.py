"""The team's shared setup: `hairpin.yaml`, whose keys are the flags of `hairpin run`."""
