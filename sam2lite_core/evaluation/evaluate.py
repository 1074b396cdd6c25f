"""Follow the objects of a dataset and score every sequence, in any process and order; a killed run can go on."""

import contextlib
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sam2lite_core.datasets.base import Dataset, VideoSequence
from sam2lite_core.errors import ConfigurationError, Sam2LiteError
from sam2lite_core.evaluation.absence import summarise_absences
from sam2lite_core.evaluation.prompts import check_prompt_kind, prompts_from_masks
from sam2lite_core.evaluation.results import Evaluation, SequenceResult
from sam2lite_core.evaluation.runs.machine import describe_machines
from sam2lite_core.evaluation.runs.resume import Unfinished, resumable_folder
from sam2lite_core.evaluation.runs.team import ALONE, Team
from sam2lite_core.evaluation.runs.workers import Follow, TrackerFactory, run_sequences
from sam2lite_core.evaluation.scoring import SequenceScoring
from sam2lite_core.files import write_json
from sam2lite_core.media.label_map import LabelMap, write_label_map
from sam2lite_core.types import ObjectState
from sam2lite_core.video import VideoTracker, frame_record, summarise

MASKS = "masks"
"""Folder of the masks in a result."""

Progress = Callable[[str, int, int], None]
"""Called after each sequence with its name, the sequences done and the number of all."""


def evaluate(
    dataset: Dataset, options: TrackerFactory, prompt: str = "mask", out: str | Path | None = None, *,
    workers: int = 1, masks: bool = True, overwrite: bool = False, progress: Progress | None = None,
    team: Team = ALONE,
) -> Evaluation:  # fmt: skip
    """Evaluate a tracker on a dataset; all processes of a team call this with the same arguments and get all of it.

    Args:
        dataset: the sequences.
        options: builds the tracker.
        prompt: on the frame where an object appears: mask, box (the mask's) or point (deepest inside it).
        out: folder for `masks/`, laid out as the dataset's server wants it, and `KEY.json`; nothing is written when
            None. An interrupted run goes on from `OUT.unfinished`.
        workers: processes; each builds a tracker of its own. The scores do not depend on it, the times do.
        masks: write the masks.
        overwrite: replace an earlier evaluation in `out`.
        progress: told of every sequence; of another process's sequences once all are done.
        team: processes that share the sequences, and `out` with them.

    Raises:
        ConfigurationError: an unknown prompt, or no worker.
        BackendError: another process of the team ended.
        SourceError: a file is missing or unreadable, a mask has another size than its frame, or `out` is not writable.
    """
    check_prompt_kind(prompt)
    if workers < 1:
        raise ConfigurationError(f"{workers} workers; give at least 1")
    names = dataset.names()
    for name in names:  # every file is looked for before hours of work start
        dataset.open(name)
    settings = describe_settings(dataset, options, prompt)
    marker = f"{dataset.key}.json"
    with contextlib.ExitStack() as stack:
        work = None
        if out is not None:
            asked = {**scored_settings(settings), "sequences": names, "masks": masks}
            resumed = resumable_folder(out, marker=marker, settings=asked, overwrite=overwrite, team=team)
            work = stack.enter_context(resumed)
        folder = work.folder / MASKS if work is not None and masks else None
        follow = partial(_follow, dataset, prompt, folder)
        results = _run(follow, names, options, work, workers, progress, team)
        sequences = tuple(results[name] for name in names)
        evaluation = Evaluation(dataset.title, settings, sequences, describe_machines(team))
        if work is not None:
            target = work.folder / marker
            team.main_does(lambda: write_json(target, result_document(evaluation)))
    return evaluation


def result_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of `KEY.json`: the evaluation, absences, and J&F by set where the data has sets."""
    document = evaluation.to_json()
    sequences = document.pop("sequences")
    document["absence"] = asdict(summarise_absences(evaluation.sequences))
    sets = evaluation.settings["data"].get("sets")
    if sets:
        document["sets"] = {name: evaluation.set_jf(name) for name in sets}
    return {**document, "sequences": sequences}


def describe_settings(dataset: Dataset, options: TrackerFactory, prompt: str) -> dict[str, Any]:
    """Describe the settings of an evaluation in plain JSON."""
    return {"data": dataset.describe(), "prompt": prompt, "tracker": options.describe()}


def scored_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that scores depend on: a run may go on with another number of threads."""
    tracker = {name: value for name, value in settings["tracker"].items() if name != "threads"}
    return {**settings, "tracker": tracker}


def _run(
    follow: Follow, names: list[str], options: TrackerFactory, work: Unfinished | None, workers: int,
    progress: Progress | None, team: Team,
) -> dict[str, SequenceResult]:  # fmt: skip
    """Return results by name; those of an earlier run are read."""
    # Asked once: processes that looked one after the other would not share out the same.
    done = [] if work is None else team.main_does(lambda: _take_up(work))
    results = {name: SequenceResult.from_json(work.load(name)) for name in done if work is not None}

    def add(document: dict[str, Any]) -> None:
        # Round trip: a run in one piece must not differ from one that was taken up again.
        result = SequenceResult.from_json(document)
        results[result.name] = result
        if progress is not None:
            progress(result.name, len(results), len(names))

    documents = []
    share = team.share([name for name in names if name not in results])
    for result in run_sequences(follow, share, options, workers):
        documents.append(result.to_json())
        if work is not None:
            work.save(result.name, documents[-1])
        add(documents[-1])
    for document in team.gather(documents):
        if document["name"] not in results:
            add(document)
    return results


def _take_up(work: Unfinished) -> list[str]:
    """Remove half-written masks of a killed run; return the names of its finished sequences."""
    for left in (work.folder / MASKS).rglob(".*.partial.png"):
        left.unlink()
    return work.finished()


def _follow(dataset: Dataset, prompt: str, masks: Path | None, tracker: VideoTracker, name: str) -> SequenceResult:
    return evaluate_sequence(tracker, dataset.open(name), prompt, masks)


def evaluate_sequence(
    tracker: VideoTracker, sequence: VideoSequence, prompt: str = "mask", masks: Path | None = None
) -> SequenceResult:
    """Follow one sequence with a tracker, which is reset first, and score it; `masks` is the folder to write masks to.

    Raises:
        SourceError: a file cannot be read or written, or a mask has another size than its frame.
    """
    try:
        shown = sequence.shown()
        prompts = {index: prompts_from_masks(label_map, prompt) for index, label_map in shown.items()}
        ids = {index: [entry.object_id for entry in entries] for index, entries in prompts.items()}
        scoring, records = SequenceScoring(ids), []
        tracker.reset()
        for frame in sequence.frames():
            truth = sequence.truth(frame)
            result = tracker.step(frame.image, prompts.get(frame.index, ()))
            scoring.add(result.label_map, truth, frame.image)
            records.append({**frame_record(frame, result), "true_area": _areas(truth)})
            if masks is not None and (target := sequence.mask_file(frame)) is not None:
                _write_mask(masks / target, result.label_map)
        scores, stability = scoring.result()
    except Sam2LiteError as error:
        raise type(error)(f"{sequence.name}: {error}") from None
    return SequenceResult(sequence.name, scores, stability, _timing(records), _frames(records))


def _areas(truth: LabelMap | None) -> dict[str, int]:
    """Count the pixels of every object of a label map, by id as JSON writes it."""
    counts = np.bincount(truth.ravel()) if truth is not None else np.zeros(0, np.int64)
    return {str(object_id): int(counts[object_id]) for object_id in np.flatnonzero(counts) if object_id}


def _write_mask(path: Path, label_map: LabelMap) -> None:
    """Write a mask as servers want it: indexed, as far as a palette reaches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label_map(path, label_map, indexed=int(label_map.max()) <= 255)


def _timing(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum up times of the steps, and the most memory that this process has held."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return {**summarise(records), "peak_resident_mb": round(peak, 1)}


def _frames(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts of every frame that a result keeps, a list each."""
    lost = ObjectState.LOST.name
    return {
        "names": [record["name"] for record in records],
        "step_ms": [round(record["timings_ms"]["total"], 3) for record in records],
        "scale": [record["scale"] for record in records],
        "memory_tokens": [record["memory_tokens_used"] for record in records],
        "lost": [[o["object_id"] for o in record["objects"] if o["state"] == lost] for record in records],
        "true_area": [record["true_area"] for record in records],
    }
