"""Keep a process from interrupting its frames to manage memory; only `main` may decide that."""

import ctypes
import gc
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""

LARGEST_REUSED = 32 * 1024 * 1024
"""Blocks up to this size are reused, bytes: glibc's maximum, and more than a 4K image."""

MOST_KEPT = 128 * 1024 * 1024
"""Free memory beyond this goes back to the system, bytes: for each of glibc's arenas, of which few hold images."""


def keep_freed_memory() -> None:
    """Reuse for the next frame what a frame frees.

    By default glibc gives the memory of a model's large arrays back when a step has ended, and images with it: the next
    frame gets pages anew, zeroed, at 2 to 4 us each, which was 0.3 to 2 ms of a VGA frame's postprocessing. Other C
    libraries are left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_REUSED)
        library.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)


def spare_what_stays() -> None:
    """Let the garbage collector pass over everything that exists now: the modules and the node live to the end anyway.

    Looking through them all takes tens of milliseconds, once in a while, between two frames.
    """
    gc.collect()
    gc.freeze()
