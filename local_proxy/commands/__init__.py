"""The subcommands of `hairpin` that the laptop needs. Light: what is heavy is imported when one runs."""
