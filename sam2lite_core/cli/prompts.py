"""Prompts as people type them: `--object 2 --point 120,80 --box 90,40,160,130 --mask first.png`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidPromptError
from sam2lite_core.media.label_map import read_label_map
from sam2lite_core.types import Prompt

OPTIONS = ("object", "mask", "point", "box")
"""What may be typed, without the dashes."""

DEFAULT_ID = 1


@dataclass
class _Parts:
    """Options typed for one object so far."""

    points: list[tuple[float, float, int]] = field(default_factory=list)
    box: tuple[float, ...] | None = None
    mask: NDArray[np.bool_] | None = None


def build_prompts(typed: Iterable[tuple[str, str]]) -> tuple[Prompt, ...]:
    """Turn (option, value) pairs, in the order in which they were typed, into one prompt per object, sorted by id.

    An `object` names the object that the options after it show, up to the next `object`. Without one, points and boxes
    show object 1, and a mask shows every id that it holds.

    Raises:
        InvalidPromptError: a value that cannot be understood, or two boxes or masks for one object.
        SourceError: a mask file cannot be read.
    """
    parts: dict[int, _Parts] = {}
    current: int | None = None
    for option, value in typed:
        if option == "object":
            current = parse_object_id(value)
            parts.setdefault(current, _Parts())
        elif option == "mask":
            _add_masks(parts, current, value)
        else:
            entry = parts.setdefault(DEFAULT_ID if current is None else current, _Parts())
            if option == "point":
                entry.points.append(parse_point(value))
            elif entry.box is not None:
                raise InvalidPromptError(f"box {value}: a second box for one object; put --object ID before each")
            else:
                entry.box = parse_box(value)
    return tuple(_prompt(object_id, parts[object_id]) for object_id in sorted(parts))


def in_typed_order(arguments: Sequence[str], given: Mapping[str, Sequence[str] | None]) -> Iterator[tuple[str, str]]:
    """Yield (option, value) as typed in the arguments; `given` has what the parser collected by option."""
    names = {f"--{option}": option for option in OPTIONS}
    queues = {option: iter(values or ()) for option, values in given.items()}
    for argument in arguments:
        option = names.get(argument.split("=", 1)[0])
        if option is None:
            continue
        value = next(queues[option], None)
        # A file that is itself called like an option was counted as one; then values run out, and nothing is
        # lost.
        if value is not None:
            yield option, value


def parse_object_id(text: str) -> int:
    """Parse an object id, or raise InvalidPromptError; `Prompt` checks its range."""
    try:
        return int(text)
    except ValueError:
        raise InvalidPromptError(f"object id {text!r} is not a whole number") from None


def parse_point(text: str) -> tuple[float, float, int]:
    """Parse a point in pixels, `X,Y` or `X,Y,LABEL`, as x, y and the label, 1 or 0, or raise InvalidPromptError."""
    numbers = _numbers(text)
    if len(numbers) not in (2, 3) or numbers[2:] not in ([], [0.0], [1.0]):
        raise InvalidPromptError(f"point {text!r} is not X,Y or X,Y,LABEL with label 0 or 1")
    return numbers[0], numbers[1], int(numbers[2]) if len(numbers) == 3 else 1


def parse_box(text: str) -> tuple[float, float, float, float]:
    """Parse a box `X0,Y0,X1,Y1` in pixels, or raise InvalidPromptError; `Prompt` checks the order of the corners."""
    numbers = _numbers(text)
    if len(numbers) != 4:
        raise InvalidPromptError(f"box {text!r} is not X0,Y0,X1,Y1")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _numbers(text: str) -> list[float]:
    """Parse numbers between commas; empty when one of them is no number."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return []


def _add_masks(parts: dict[int, _Parts], current: int | None, path: str) -> None:
    """Add a mask file to the current object, or each of its ids to the object of that id."""
    label_map = read_label_map(path)
    ids = [int(value) for value in np.unique(label_map) if value != 0]
    if not ids:
        raise InvalidPromptError(f"{path}: mask is empty; mark at least one pixel")
    if current is not None and len(ids) > 1:
        raise InvalidPromptError(
            f"{path}: mask holds {len(ids)} objects; leave out --object {current} to show them all"
        )
    for value in ids:
        entry = parts.setdefault(value if current is None else current, _Parts())
        if entry.mask is not None:
            raise InvalidPromptError(f"{path}: a second mask for one object; put --object ID before each")
        entry.mask = label_map == value


def _prompt(object_id: int, parts: _Parts) -> Prompt:
    """Make the prompt of an object's parts."""
    if parts.mask is not None and (parts.points or parts.box is not None):
        raise InvalidPromptError(f"object {object_id}: a mask needs no points and no box; give one or the other")
    return Prompt(
        object_id=object_id,
        points=np.array([point[:2] for point in parts.points], np.float32) if parts.points else None,
        point_labels=np.array([point[2] for point in parts.points], np.uint8) if parts.points else None,
        box=None if parts.box is None else np.array(parts.box, np.float32),
        mask=parts.mask,
    )
