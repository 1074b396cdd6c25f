"""Runs of many sequences: workers, teams of machines, resuming."""
