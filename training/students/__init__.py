"""Load, transplant, quantise, export and evaluate students."""
