"""Ablations of the paper: fork a run, score each variation, write the table."""
