"""Trainer, optimizer, learning rate, log and progress."""
