"""`hairpin` subcommands that need to know how steering is delivered."""
