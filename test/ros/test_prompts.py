"""Prompts of parameters and operators: what they become, and which ids they may have."""

from pathlib import Path

import numpy as np
import pytest

from sam2lite_core.errors import InvalidPromptError
from sam2lite_core.media.label_map import write_label_map
from sam2lite_ros.tracker.parameters import InitialPrompt
from sam2lite_ros.tracker.prompts import initial_prompts, resolve_id


def initial(object_id=1, box=(1.0, 2.0, 9.0, 8.0), mask_file=None):
    return InitialPrompt(object_id, (), (), None if mask_file else box, mask_file)


@pytest.fixture
def label_file(tmp_path) -> Path:
    """A 16-bit PNG with objects 7 and 300."""
    labels = np.zeros((20, 30), np.uint16)
    labels[2:6, 3:9], labels[10:15, 10:20] = 7, 300
    write_label_map(tmp_path / "labels.png", labels)
    return tmp_path / "labels.png"


@pytest.mark.parametrize(
    ("object_id", "encoding", "fits"),
    [(255, "mono8", True), (256, "mono8", False), (256, "mono16", True), (65535, "mono16", True)],
)
def test_the_first_prompts_id_has_to_fit_the_published_mask(object_id, encoding, fits):
    if fits:
        assert [prompt.object_id for prompt in initial_prompts(initial(object_id), encoding)] == [object_id]
    else:
        with pytest.raises(InvalidPromptError, match=r"object id 256 does not fit mask_encoding mono8.*mono16"):
            initial_prompts(initial(object_id), encoding)


def test_so_has_every_label_of_the_mask_file(label_file):
    prompts = initial_prompts(initial(0, mask_file=label_file), "mono16")
    assert [prompt.object_id for prompt in prompts] == [7, 300]
    assert [int(prompt.mask.sum()) for prompt in prompts] == [24, 50]
    with pytest.raises(InvalidPromptError, match="object id 300 does not fit mask_encoding mono8"):
        initial_prompts(initial(0, mask_file=label_file), "mono8")
    # As one object of a small id, the same file is fine.
    (prompt,) = initial_prompts(initial(4, mask_file=label_file), "mono8")
    assert int(prompt.mask.sum()) == 74


def test_nothing_given_is_no_prompt():
    assert initial_prompts(initial(300, box=None), "mono8") == ()


@pytest.mark.parametrize(
    ("asked", "taken", "expected"), [(0, (), 1), (0, (1, 2, 4), 3), (9, (9,), 9), (0, range(1, 255), 255)]
)
def test_ids_are_the_smallest_free_or_the_one_asked_for(asked, taken, expected):
    assert resolve_id(asked, taken, "mono8") == expected


def test_when_every_id_is_taken_the_remedy_is_named():
    with pytest.raises(InvalidPromptError, match="up to 255 are taken; remove"):
        resolve_id(0, range(1, 256), "mono8")
