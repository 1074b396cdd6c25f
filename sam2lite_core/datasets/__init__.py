"""Read datasets of labelled videos, one module a layout, for training and evaluation, all behind `base.Dataset`."""
