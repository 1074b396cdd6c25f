"""Isolate a group of ROS processes, and give their transport room for images."""

import os
import random
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from sam2lite_core.errors import ConfigurationError

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Environment variables that name a Fast DDS profile: of Fast DDS 3, and of 2, which Humble and Jazzy have."""


def isolate() -> None:
    """Change this process's environment, and so its children's, before anything of ROS is started in it.

    A random domain on this machine only, and, unless the user has a Fast DDS profile, ours: with the defaults, images
    between two processes are lost.

    Raises:
        ConfigurationError: the package's install space is not sourced.
    """
    distribution = os.environ.get("ROS_DISTRO")
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))
    if distribution == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    else:
        os.environ.pop("ROS_LOCALHOST_ONLY", None)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        newer, older = PROFILE_VARIABLES
        os.environ[older if distribution in ("humble", "jazzy") else newer] = str(_profile())


def _profile() -> Path:
    try:
        return Path(get_package_share_directory("sam2lite_ros")) / "config" / "fastdds_shm.xml"
    except PackageNotFoundError as error:
        raise ConfigurationError(
            f"sam2lite_ros is not installed in any prefix ({error}); source install/setup.bash or scripts/env.sh"
        ) from error
