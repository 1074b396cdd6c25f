"""Measure speed, memory and energy."""
