"""Training of the SAM2-Lite students. Run from a checkout: `python -m training …`; never installed."""
