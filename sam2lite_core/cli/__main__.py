"""Run `python -m sam2lite_core.cli` as `sam2lite`."""

from sam2lite_core.cli.app import main

main()
