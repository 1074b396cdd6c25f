"""Where datasets keep their frames and masks, one module a layout, all behind `base.Dataset`."""
