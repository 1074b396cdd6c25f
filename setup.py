"""Lets tools that look for setup.py build the package; everything it says stands in pyproject.toml."""

from setuptools import setup

setup()
