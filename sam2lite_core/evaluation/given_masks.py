"""Score masks from elsewhere as our own are: `sam2lite eval results PRED GT`."""

from functools import partial
from pathlib import Path
from textwrap import shorten

import numpy as np

from sam2lite_core.datasets.base import FolderSequence, list_folders
from sam2lite_core.errors import Sam2LiteError, SourceError
from sam2lite_core.evaluation.results import Evaluation, SequenceResult
from sam2lite_core.evaluation.scoring import SequenceScoring
from sam2lite_core.media.label_map import LabelMap, read_label_map
from sam2lite_core.media.pictures import natural_key


def score_results(prediction: Path, truth: Path, *, as_one: bool = False) -> Evaluation:
    """Score folders of masks against folders of true masks.

    Both hold `SEQUENCE/FRAME.png`, or one sequence's `FRAME.png` directly. Frames are those of the truth, in natural
    order, and may be sparser than the masks; each needs a mask, except the first. Objects count from the frame on where
    they first appear in the truth. `as_one` takes all objects of a mask as one, as DAVIS 2016 does.

    Raises:
        SourceError: a folder or mask is missing, empty or unreadable, has another size than its truth, or shows an id
            or a sequence that the truth does not have; the message names the file or folder.
    """
    for folder in (prediction, truth):
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder")
    single = bool(_masks(truth))
    names = [truth.name] if single else list_folders(truth)
    pairs = {name: (prediction, truth) if single else (prediction / name, truth / name) for name in names}
    for name, (predicted, true) in pairs.items():
        if not predicted.is_dir():
            raise SourceError(f"{predicted}: no such folder; the truth has sequence {name!r}")
        if not _masks(true):
            raise SourceError(f"{true}: no mask in this folder")
    asked = {predicted for predicted, _ in pairs.values()}
    strange = [] if single else [path for path in prediction.iterdir() if path not in asked and _masks(path)]
    if strange:
        raise SourceError(
            f"{min(strange)}: the truth has no sequence of this name, only {shorten(', '.join(names), 200)}; score "
            "against a truth that has it, or leave the folder out"
        )
    results = [_score(name, predicted, true, as_one) for name, (predicted, true) in pairs.items()]
    settings = {"prediction": str(prediction), "truth": str(truth), "as_one": as_one}
    return Evaluation("masks by the DAVIS protocol", settings, tuple(results), {})


def _masks(folder: Path) -> list[Path]:
    """List the PNG files of a folder in natural order."""
    return sorted(folder.glob("*.png"), key=lambda path: natural_key(path.name))


def _score(name: str, predicted: Path, true: Path, as_one: bool) -> SequenceResult:
    """Score one sequence."""
    files, read = _masks(true), partial(_read, as_one=as_one)
    masks = {path.stem: path for path in files}
    shown = FolderSequence(name, tuple(files), masks, read, late=True).shown()
    ids = {index: sorted(_ids(label_map)) for index, label_map in shown.items()}
    known = {object_id for fresh in ids.values() for object_id in fresh}
    scoring = SequenceScoring(ids)
    for index, path in enumerate(files):
        truth = read(path)
        target = predicted / path.name
        # The frame that shows everything is often left out of results.
        unscored = index == 0 and not target.exists()
        prediction = truth if unscored else read(target)
        if prediction.shape != truth.shape:
            (height, width), (rows, columns) = prediction.shape, truth.shape
            raise SourceError(f"{target}: mask is {width}x{height}, its truth {columns}x{rows}")
        strange = _ids(prediction) - known
        if strange:
            raise SourceError(
                f"{target}: id {min(strange)} does not exist in the truth, which has "
                f"{', '.join(map(str, sorted(known)))}"
            )
        scoring.add(prediction, truth, None)
    try:
        scores, stability = scoring.result()
    except Sam2LiteError as error:
        raise SourceError(f"{true}: {error}") from None
    return SequenceResult(name, scores, stability, {}, {"names": [path.stem for path in files]})


def _read(path: Path, as_one: bool) -> LabelMap:
    """Read a label map, as one object when that is asked for."""
    label_map = read_label_map(path)
    return np.asarray(label_map != 0, dtype=np.uint8) if as_one else label_map


def _ids(label_map: LabelMap) -> set[int]:
    """Return the object ids of a label map."""
    return set(np.unique(label_map).tolist()) - {0}
