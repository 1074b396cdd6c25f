"""Values that the node's parameters accept and refuse; the shipped YAML against the defaults."""

from contextlib import nullcontext as does_not_raise
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sam2lite_core.errors import ConfigurationError
from sam2lite_ros.tracker.parameter_table import SPECIFICATIONS, descriptor
from sam2lite_ros.tracker.parameters import TrackerParameters, refusal

ROOT = Path(__file__).resolve().parents[2]


def defaults(**changes):
    values = {name: specification.default for name, specification in SPECIFICATIONS.items()}
    return {**values, **{name.replace("__", "."): value for name, value in changes.items()}}


def refused(match):
    return pytest.raises(ConfigurationError, match=match)


@pytest.mark.parametrize(
    ("changes", "expectation"),
    [
        ({}, does_not_raise()),
        ({"variant": "huge"}, refused("'huge'.*tiny, small, base")),
        ({"backend": "abacus"}, refused("'abacus'.*auto, tensorrt, onnxruntime")),
        ({"precision": "fp7"}, refused("'fp7'.*auto")),
        ({"controller": "predictive"}, does_not_raise()),
        ({"controller": "fancy"}, refused("'fancy'.*plain, predictive, off")),
        ({"memory_policy": "forget"}, refused("'forget'.*learned")),
        ({"image_transport": "theora"}, refused("'theora'.*raw, compressed")),
        ({"mask_encoding": "mono32"}, refused("'mono32'.*mono8, mono16")),
        ({"memory_budget": 63}, refused("63 is not 0 or 64 to 1024")),
        ({"memory_budget": 64}, does_not_raise()),
        ({"frame_deadline_ms": -0.1}, refused("frame_deadline_ms is -0.1")),
        ({"frame_deadline_ms": 0.0}, does_not_raise()),
        ({"frame_deadline_ms": "soon"}, refused("frame_deadline_ms is 'soon'")),
        ({"min_scale": 0.4}, refused("min_scale is 0.4; give 0.5 to 1")),
        ({"min_scale": 0.9, "max_scale": 0.6}, refused("min_scale 0.9 is above max_scale 0.6")),
        ({"min_scale": 0.61, "max_scale": 0.69}, refused("no resolution rung")),
        ({"min_window": 5, "max_window": 4}, refused("min_window 5 is above max_window 4")),
        ({"kp": float("nan")}, refused("kp is nan")),
        ({"initial_prompt__points": [1.0, 2.0, 3.0]}, refused("has 3 numbers")),
        ({"initial_prompt__points": ["left"]}, refused("give numbers")),
        ({"initial_prompt__points": [1, 2], "initial_prompt__point_labels": [1, 0]}, refused("2 entries for 1 points")),
        ({"initial_prompt__points": [1, 2], "initial_prompt__point_labels": [2]}, refused("1 or 0")),
        ({"initial_prompt__box": [5.0, 5.0, 5.0, 9.0]}, refused("x0 < x1")),
        ({"initial_prompt__box": [5.0, 5.0]}, refused("x0, y0, x1, y1")),
        ({"initial_prompt__box": [1.0, 1.0, 5.0, 5.0], "initial_prompt__object_id": 0}, refused("object_id is 0")),
    ],
)
def test_values_are_checked_alone_and_together(changes, expectation):
    with expectation:
        TrackerParameters.from_values(defaults(**changes))


def test_zero_and_empty_mean_none():
    parameters = TrackerParameters.from_values(defaults(frame_deadline_ms=0.0))
    assert (parameters.frame_deadline_ms, parameters.max_frame_age_ms) == (None, None)
    assert (parameters.model_path, parameters.threads, parameters.memory_budget) == (None, None, None)
    assert not parameters.initial_prompt.given


def test_an_initial_prompt_is_put_together():
    prompt = TrackerParameters.from_values(
        defaults(
            initial_prompt__object_id=4,
            initial_prompt__points=[1, 2, 3.5, 4],
            initial_prompt__point_labels=[1, 0],
            initial_prompt__box=[0.0, 1.0, 9.0, 8.0],
        )
    ).initial_prompt
    assert prompt.given
    assert (prompt.object_id, prompt.points, prompt.point_labels) == (4, ((1.0, 2.0), (3.5, 4.0)), (1, 0))
    assert prompt.box == (0.0, 1.0, 9.0, 8.0)


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_while_active_only_live_parameters_change(name):
    specification = SPECIFICATIONS[name]
    other = {str: "other", bool: True, int: 3, float: 0.6, list: [1.0, 2.0, 3.0, 4.0]}[type(specification.default)]
    if specification.choices is not None:
        other = next(choice for choice in specification.choices if choice != specification.default)
    reason = refusal(defaults(), {name: other}, active=True)
    if specification.live:
        assert reason is None
    else:
        assert name in reason and "active" in reason
    assert refusal(defaults(), {name: specification.default}, active=True) is None


def test_an_unknown_name_is_left_to_rclpy():
    assert refusal(defaults(), {"use_sim_time": True}, active=True) is None


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_every_parameter_describes_itself(name):
    specification = SPECIFICATIONS[name]
    message = descriptor(specification)
    assert len(message.description) > 20
    assert message.read_only == specification.read_only
    if specification.bounds is not None:
        ranges = [*message.floating_point_range, *message.integer_range]
        assert (ranges[0].from_value, ranges[0].to_value) == specification.bounds
    elif isinstance(specification.default, (int, float)):
        assert isinstance(specification.default, bool)


def test_the_shipped_file_holds_every_parameter_with_its_default():
    shipped = yaml.safe_load((ROOT / "config" / "tracker.yaml").read_text())["/**"]["ros__parameters"]
    prompt = shipped.pop("initial_prompt")
    shipped.update({f"initial_prompt.{name}": value for name, value in prompt.items()})
    # An empty list has no type in a parameter file, so these three stand there as comments.
    lists = {name for name, specification in SPECIFICATIONS.items() if isinstance(specification.default, list)}
    assert shipped == {name: spec.default for name, spec in SPECIFICATIONS.items() if name not in lists}
    text = (ROOT / "config" / "tracker.yaml").read_text()
    for name, specification in SPECIFICATIONS.items():
        line = next(line for line in text.splitlines() if line.lstrip(" #").startswith(name.split(".")[-1] + ":"))
        assert ("# live" in line) == specification.live, line


def test_only_live_values_are_taken_over_until_the_next_configure():
    running = TrackerParameters.from_values(defaults())
    newer = TrackerParameters.from_values(
        defaults(mask_encoding="mono16", memory_budget=64, image_transport="compressed", kp=0.7, min_scale=0.6)
    )
    merged = running.with_live(newer)
    assert (merged.kp, merged.min_scale) == (0.7, 0.6)
    assert (merged.mask_encoding, merged.memory_budget, merged.image_transport) == ("mono8", None, "raw")
    assert replace(merged, kp=running.kp, min_scale=running.min_scale) == running
