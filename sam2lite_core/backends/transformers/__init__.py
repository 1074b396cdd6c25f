"""Backend that runs SAM 2.1 and EdgeTAM by transformers."""
