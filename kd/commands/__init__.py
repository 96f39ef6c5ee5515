"""The subcommands of `kd`. Nothing heavy is imported before a command runs."""
