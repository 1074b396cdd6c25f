"""Provide the `sam2lite` command, one module a subcommand; `app` lists them."""
