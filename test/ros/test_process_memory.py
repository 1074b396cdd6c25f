"""Memory that a frame frees is there for the next one; in processes of their own, since it concerns a whole process."""

import gc
import platform
import subprocess
import sys

import pytest

from sam2lite_ros import process_memory

# On a thread like the inference thread: a model's large arrays come and go, then a frame's. The pages that the kernel
# has to hand out for the latter are counted.
FRAMES = """
import resource, threading
import numpy as np
from sam2lite_ros.process_memory import keep_freed_memory

def pages():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt

def frames():
    counts = []
    for _ in range(20):
        step = [np.ones(2_000_000) for _ in range(3)]
        del step
        before = pages()
        held = [np.ones((480, 640, 3), np.uint8), np.ones((480, 640), np.float32), np.ones((480, 640), np.uint8)]
        del held
        counts.append(pages() - before)
    print(sum(counts[10:]))

{call}
thread = threading.Thread(target=frames)
thread.start()
thread.join()
"""


def fresh_pages(call: str) -> int:
    script = FRAMES.replace("{call}", call)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's; other C libraries are left alone")
def test_a_frame_reuses_the_memory_of_the_one_before():
    by_default = fresh_pages("pass")
    assert by_default > 100, "this C library keeps images by itself: there is nothing to change"
    assert fresh_pages("keep_freed_memory()") < by_default / 10


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(process_memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(process_memory.ctypes, "CDLL", lambda name: pytest.fail("another C library was asked"))
    process_memory.keep_freed_memory()


def test_the_collector_passes_over_what_exists_and_still_finds_what_comes():
    class Loop:
        pass

    try:
        process_memory.spare_what_stays()
        frozen = gc.get_freeze_count()
        assert frozen > 10_000
        loop = Loop()
        loop.itself = loop
        del loop
        assert gc.collect() >= 1
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()
