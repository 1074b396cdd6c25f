"""Make the CMake files of the ROS wheels name this interpreter instead of the machine that built the wheels.

Run by setup.sh inside the environment that holds the wheels; a second run finds nothing to do.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

BUILD_MACHINE = "/opt/python/"
NUMPY_INCLUDE = re.compile(r"/opt/python/[^/;\"]+/lib/[^/;\"]+/site-packages/numpy/(?:_core|core)/include")
PYTHON_INCLUDE = re.compile(r"/opt/python/[^/;\"]+/include/python3\.\d+")


def repair(prefix: Path) -> int:
    """Rewrite the paths below `prefix`/share and return how many files changed.

    Raises:
        RuntimeError: a file still names the build machine, so the wheels hold a path that is not known here.
    """
    changed = 0
    for path in sorted(prefix.glob("share/*/cmake/*.cmake")):
        text = path.read_text()
        if BUILD_MACHINE not in text:
            continue
        text = NUMPY_INCLUDE.sub(np.get_include(), text)
        text = PYTHON_INCLUDE.sub(sysconfig.get_paths()["include"], text)
        if BUILD_MACHINE in text:
            raise RuntimeError(f"{path} names a path below {BUILD_MACHINE} that this script does not know")
        path.write_text(text)
        changed += 1
    return changed


if __name__ == "__main__":
    print(f"setup: repaired {repair(Path(sys.prefix))} CMake files of the ROS wheels")
