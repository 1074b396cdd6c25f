"""The bag that a replay leaves: the masks and what the tracker said, under the stamps of the recorded images."""

from pathlib import Path

import numpy as np

from sam2lite_core.evaluation.bag.plan import Plan
from sam2lite_core.evaluation.bag.session import Recording
from sam2lite_core.media.bags.store import RAW_TYPE, message_types
from sam2lite_core.media.bags.writer import header, new_bag, packed_message
from sam2lite_core.media.label_map import read_label_map

MASK_TOPIC = "/tracker/mask"
STATUS_TOPIC = "/tracker/status"
STATUS_TYPE = "sam2lite_ros/msg/TrackerStatus"


def write_bag(plan: Plan, recording: Recording, path: Path, storage: str) -> int:
    """Write masks and statuses.

    Headers carry the stamps of the recorded images, so that both bags belong together. A message's time of recording is
    its image's plus the mask's age.

    Args:
        plan: what was played.
        recording: what came back.
        path: the bag's folder, which must not exist.
        storage: sqlite3 or mcap.

    Returns:
        The number of messages.

    Raises:
        SourceError: the place is taken or cannot be written, or a mask cannot be read.
    """
    from rosbags.typesys import get_types_from_msg

    types = message_types()
    types.register(get_types_from_msg(recording.definition, STATUS_TYPE))
    dtype, encoding = (np.uint16, "mono16") if max(plan.object_ids) > 255 else (np.uint8, "mono8")
    published = {
        index: plan.recorded_ns[index] + round(1e6 * recording.statuses[index]["age_ms"])
        if index in recording.statuses
        else plan.recorded_ns[index]
        for index in sorted({*recording.masks, *recording.statuses})
    }
    count = 0
    with new_bag(path, storage) as bag:
        for index, time in sorted(published.items(), key=lambda entry: entry[1]):
            stamp = plan.stamps_ns[index]
            if index in recording.masks:
                labels = read_label_map(recording.masks[index], keep_ids=True)
                mask = packed_message(np.asarray(labels, dtype), encoding, stamp, plan.frame_id)
                bag.add(MASK_TOPIC, RAW_TYPE, mask, time)
                count += 1
            if index in recording.statuses:
                fields = {k: v for k, v in recording.statuses[index].items() if k != "stamp_ns"}
                status = types.types[STATUS_TYPE](header=header(stamp, plan.frame_id), **fields)
                bag.add(STATUS_TOPIC, STATUS_TYPE, status, time)
                count += 1
    return count
