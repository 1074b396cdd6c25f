"""Synthesise clips from masked stills."""
