"""Write the masks and statuses of a replay as a bag, under the stamps of the recorded images."""

from pathlib import Path

import numpy as np

from sam2lite_core.evaluation.bag.request import ReplaySettings
from sam2lite_core.evaluation.bag.session import Recording
from sam2lite_core.media.bags.store import RAW_TYPE, message_types
from sam2lite_core.media.bags.writer import header, new_bag, packed_message
from sam2lite_core.media.label_map import read_label_map

MASK_TOPIC = "/tracker/mask"
STATUS_TOPIC = "/tracker/status"
STATUS_TYPE = "sam2lite_ros/msg/TrackerStatus"


def write_bag(settings: ReplaySettings, recording: Recording, path: Path, storage: str) -> int:
    """Write masks and statuses to a new bag; return their number. Each is recorded at its image's time plus its age.

    Raises:
        SourceError: the place is taken or cannot be written, or a mask cannot be read.
    """
    from rosbags.typesys import get_types_from_msg

    types = message_types()
    types.register(get_types_from_msg(recording.definition, STATUS_TYPE))
    dtype, encoding = (np.uint16, "mono16") if max(settings.object_ids) > 255 else (np.uint8, "mono8")
    published = {
        index: settings.recorded_ns[index] + round(1e6 * recording.statuses.get(index, {}).get("age_ms", 0.0))
        for index in sorted({*recording.masks, *recording.statuses})
    }
    with new_bag(path, storage) as bag:
        for index, time in sorted(published.items(), key=lambda entry: entry[1]):
            stamp = settings.stamps_ns[index]
            if index in recording.masks:
                labels = read_label_map(recording.masks[index], keep_ids=True)
                mask = packed_message(np.asarray(labels, dtype), encoding, stamp, settings.frame_id)
                bag.add(MASK_TOPIC, RAW_TYPE, mask, time)
            if index in recording.statuses:
                fields = {k: v for k, v in recording.statuses[index].items() if k != "stamp_ns"}
                status = types.types[STATUS_TYPE](header=header(stamp, settings.frame_id), **fields)
                bag.add(STATUS_TOPIC, STATUS_TYPE, status, time)
    return len(recording.masks) + len(recording.statuses)
