"""Evaluate a bag: check, replay, track again offline, score, write."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.bag.record import write_bag
from sam2lite_core.evaluation.bag.request import ReplaySettings, Request, check_request
from sam2lite_core.evaluation.bag.result import Outcome, document
from sam2lite_core.evaluation.bag.scores import chose_otherwise, run_offline, score_all, score_processed
from sam2lite_core.evaluation.bag.session import Recording, check_ros, replay
from sam2lite_core.files import check_output_folder, output_folder, write_json
from sam2lite_core.media.bags.writer import check_new_bag
from sam2lite_core.variants import MAX_WINDOW

RESULT_FILE = "bag.json"
"""The file that a complete output folder holds; written last."""

Progress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[], None]]]
"""Given a title and a number of frames; the function that it yields is called for each of them."""

NO_PROGRESS: Progress = lambda *_: contextlib.nullcontext(lambda: None)  # noqa: E731


def evaluate_bag(
    request: Request,
    out: Path | None = None,
    out_bag: Path | None = None,
    *,
    storage: str = "sqlite3",
    overwrite: bool = False,
    progress: Progress = NO_PROGRESS,
) -> dict[str, Any]:
    """Evaluate the node on a bag, and return the content of `bag.json`.

    Args:
        request: the bag, the tracker and the truth.
        out: folder for `masks/NNNNN.png`, named by the frame's number, and `bag.json`; nothing is written when None.
        out_bag: bag to write with masks and statuses, in `storage` sqlite3 or mcap; it must not exist.
        overwrite: replace an earlier result in `out`.
        progress: told of the replay and the offline runs.

    Raises:
        Sam2LiteError: bad input, or a failed process (ReplayError); nothing has been written then.
    """
    if out is not None:
        check_output_folder(out, marker=RESULT_FILE, overwrite=overwrite)
    if out_bag is not None:
        check_new_bag(out_bag, storage)
        if out is not None and out.absolute() in (out_bag.absolute(), *out_bag.absolute().parents):
            raise SourceError(f"{out_bag}: lies in the folder for the result, {out}; name another place for the bag")
    settings = check_request(request)
    check_ros()
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="sam2lite_bag_", ignore_cleanup_errors=True)
        work = Path(stack.enter_context(temporary))
        with progress(f"playing {request.bag}", len(settings.recorded_ns)) as advance:
            recording = replay(settings, work, advance)
        result = document(settings, recording, score(settings, recording, progress))
        if out is not None:
            folder = stack.enter_context(output_folder(out, marker=RESULT_FILE, overwrite=overwrite))
            _copy_masks(recording, folder / "masks")
            write_json(folder / RESULT_FILE, result)
            # Checked here too, so that a run that is refused leaves no bag.
            check_output_folder(out, marker=RESULT_FILE, overwrite=overwrite)
        if out_bag is not None:
            write_bag(settings, recording, out_bag, storage)
    return result


def score(settings: ReplaySettings, recording: Recording, progress: Progress = NO_PROGRESS) -> Outcome:
    """Score a replay, and the offline runs that explain it, or raise SourceError."""
    with progress("offline", len(recording.masks)) as advance:
        offline = as_played = run_offline(settings, recording, as_played=False, on_frame=advance)
    if chose_otherwise(settings, recording, MAX_WINDOW):
        with progress("offline, as played", len(recording.masks)) as advance:
            as_played = run_offline(settings, recording, as_played=True, on_frame=advance)
    return Outcome(score_processed(settings, recording), score_all(settings, recording), offline, as_played)


def _copy_masks(recording: Recording, folder: Path) -> None:
    folder.mkdir()
    for index, path in recording.masks.items():
        shutil.copyfile(path, folder / f"{index:05d}.png")
