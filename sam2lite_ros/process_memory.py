"""Keep memory management from interrupting frames; only `main` may decide that for a process."""

import ctypes
import gc
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""

LARGEST_REUSED = 32 * 1024 * 1024
"""Largest block that is reused, bytes: glibc's maximum, and more than a 4K image."""

MOST_KEPT = 128 * 1024 * 1024
"""Free memory that each of glibc's arenas keeps, bytes; few of them hold images."""


def keep_freed_memory() -> None:
    """Reuse for the next frame the memory that a frame frees; C libraries other than glibc are left alone.

    By default glibc returns large arrays to the system after a step: new pages cost 0.3 to 2 ms a VGA frame.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_REUSED)
        library.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)


def spare_what_stays() -> None:
    """Exempt all objects that exist now from garbage collection, which would take tens of milliseconds at times."""
    gc.collect()
    gc.freeze()
