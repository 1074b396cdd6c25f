"""Share the library of bags, its message types and its errors between reading and writing."""

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sam2lite_core.errors import ConfigurationError, Sam2LiteError, SourceError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

RAW_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"

METADATA_FILE = "metadata.yaml"
"""The file that makes a folder a bag."""

STORAGE_FILES = {".db3": "sqlite3", ".mcap": "mcap"}
"""Suffix of a bag's files to the name of its storage, as `ros2 bag --storage` has it."""

ROS1_SUFFIX = ".bag"


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag, also one of ROS 1, which `BagFrames` refuses with advice."""
    if path.is_dir():
        return (path / METADATA_FILE).is_file() or any(entry.suffix in STORAGE_FILES for entry in path.iterdir())
    return path.suffix in STORAGE_FILES or path.suffix == ROS1_SUFFIX


@cache
def message_types() -> "Typestore":
    """Return the types of ROS's own messages; those of images are the same from Humble to Kilted.

    Raises:
        ConfigurationError: `rosbags` is not installed.
    """
    try:
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"bags are read and written with rosbags, which is not installed ({error}); pip install 'sam2lite[bags]'"
        ) from None
    return get_typestore(Stores.ROS2_HUMBLE)


@contextlib.contextmanager
def bag_errors(path: Path) -> Iterator[None]:
    """Turn the library's many errors over a damaged bag into a `SourceError` that names the bag."""
    try:
        yield
    except Sam2LiteError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"{path}: cannot be read as a bag; it is cut short, damaged, or its recorder was stopped hard "
            f"(`ros2 bag reindex` makes missing metadata anew): {reason}"
        ) from error
