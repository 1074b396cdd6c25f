"""Configurations from YAML: what is read, and what every mistake is told."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2lite_core.errors import ConfigurationError, Sam2LiteError
from training.cli.options import CONFIGS, read_config
from training.config import loading
from training.config.data import Augmentation
from training.config.objective import LossWeights
from training.config.run import RunConfig
from training.config.stages import StageConfig

STAGE = "stages: {memory: {steps: 3}}\n"


def load(tmp_path: Path, text: str, *changes: str) -> RunConfig:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return loading.load(RunConfig, path, changes)


def test_values_reach_nested_dataclasses_and_the_rest_keeps_its_defaults(tmp_path: Path) -> None:
    config = load(
        tmp_path, STAGE + "unroll: {budgets: [7, 9], weights: {edge: 0.5}}\noptimizer: {betas: [0.8, 0.9]}\nfolder: a/b"
    )
    assert config.unroll.budgets == (7, 9)
    assert config.unroll.weights == LossWeights(edge=0.5)
    assert config.optimizer.betas == (0.8, 0.9)
    assert config.folder == Path("a/b")
    assert config.data.augmentation == Augmentation()


def test_an_overlay_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text(STAGE + "seed: 4\nunroll: {budgets: [5], weights: {edge: 0.1}}")
    config = load(tmp_path, "base: below.yaml\nunroll: {weights: {iou: 2}}")
    assert (config.seed, config.unroll.budgets) == (4, (5,))
    assert config.unroll.weights == LossWeights(edge=0.1, iou=2.0)


@pytest.mark.parametrize(("change", "expected"), [("seed=7", 7), ("seed= 8", 8)])
def test_set_changes_a_value(tmp_path: Path, change: str, expected: int) -> None:
    assert load(tmp_path, STAGE, change).seed == expected


def test_set_reads_yaml_and_the_last_one_wins(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        STAGE,
        "unroll.weights.edge=0.25",
        "unroll.budgets=[3, 4]",
        "stages.memory.learning_rate=1e-5",
        "unroll.weights.edge=0",
    )
    assert config.unroll.weights.edge == 0.0
    assert config.unroll.budgets == (3, 4)
    assert config.stages.memory is not None and config.stages.memory.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("varaint: tiny", "unknown key 'varaint'; did you mean 'variant'?"),
        (STAGE + "unroll: {weights: {egde: 1}}", "unknown key 'unroll.weights.egde'; did you mean 'edge'?"),
        (STAGE + "data: {qqq: 1}", "unknown key 'data.qqq'; choose one of"),
        (STAGE + "seed: x", "seed is 'x', expected a valid integer"),
        (STAGE + "seed: 1.5", "seed is 1.5, expected a valid integer"),
        (STAGE + "seed: true", "seed is True, expected a valid integer"),
        (STAGE + "optimizer: {weight_decay: much}", "optimizer.weight_decay is 'much', expected a valid number"),
        (STAGE + "optimizer: {betas: [1]}", "optimizer.betas[1] is missing"),
        (STAGE + "optimizer: {betas: 1}", "optimizer.betas is 1, expected a valid array"),
        (STAGE + "data: {skip_bad: 1}", "data.skip_bad is 1, expected a valid boolean"),
        (STAGE + "precision: fp8", "precision is 'fp8', expected 'no', 'bf16' or 'fp16'"),
        (STAGE + "data: {sources: [{kind: davi}]}", "data.sources[0].kind is 'davi', expected 'davis',"),
        (STAGE + "data: {sources: [{kind: davis}]}", "data.sources[0]: root is missing"),
        (STAGE + "data: {sources: [{}]}", "data.sources[0].kind is missing"),
        (
            "stages: {memory: {learning_rate: 1}}",
            "stages.memory: a stage's length is given by epochs, steps or minutes",
        ),
        ("stages: {memory: {steps: 1, epochs: 2}}", "epochs and steps found"),
        ("stages: {memory: {steps: 1, phases: [{height: 50}]}}", "phases[0].height is 50, expected a multiple of 16"),
        ("stages: {memory: {steps: 1, phases: [{until: .5}]}}", "phases end at [0.5]"),
        ("stages: {}", "stages is empty"),
        (STAGE + "teacher: {name: sam2}", "teacher: path is missing"),
        (STAGE + "variant: huge", "unknown variant 'huge'"),
        ("- a", "must hold keys and values"),
        ("a: [", "not YAML"),
    ],
)
def test_mistakes_name_key_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Sam2LiteError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


@pytest.mark.parametrize("change", ["seed", "=3", "a..b=3", "seed=[", ".seed=1"])
def test_a_set_that_cannot_be_read_is_quoted(tmp_path: Path, change: str) -> None:
    with pytest.raises(ConfigurationError, match="--set"):
        load(tmp_path, STAGE, change)


def test_files_that_are_missing_or_go_round_in_circles_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml"):
        loading.read_document(tmp_path / "nowhere.yaml")
    (tmp_path / "a.yaml").write_text("base: b.yaml")
    (tmp_path / "b.yaml").write_text("base: a.yaml")
    with pytest.raises(ConfigurationError, match="builds on itself"):
        loading.read_document(tmp_path / "a.yaml")


@settings(deadline=None)  # a busy machine is no error
@given(
    seed=st.integers(0, 2**31),
    edge=st.floats(0, 10),
    budgets=st.lists(st.integers(1, 999), min_size=1, max_size=4),
    steps=st.integers(1, 99),
)
def test_what_is_dumped_is_read_back_unchanged(seed: int, edge: float, budgets: list[int], steps: int) -> None:
    document = {
        "seed": seed,
        "unroll": {"budgets": budgets, "weights": {"edge": edge}},
        "stages": {"memory": {"steps": steps}},
    }
    config = loading.build(RunConfig, document)
    assert loading.build(RunConfig, loading.yaml.safe_load(loading.dump(config))) == config


ALL_CONFIGS = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("name", ALL_CONFIGS, ids=str)
def test_every_config_that_ships_is_valid(name: Path) -> None:
    config = read_config(name.with_suffix(""), ())
    assert config.stages.numbered()


def test_a_config_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match="smoke"):
        read_config(Path("smok"), ())


def test_a_stage_ends_where_its_last_phase_ends() -> None:
    with pytest.raises(ConfigurationError, match="must grow"):
        loading.build(StageConfig, {"steps": 1, "phases": [{"until": 0.6}, {"until": 0.6}, {}]})


def test_numbers_are_read_as_yaml_1_2_writes_them(tmp_path: Path) -> None:
    config = load(tmp_path, "stages: {memory: {steps: 3, learning_rate: 1e-5}}")
    assert config.stages.memory is not None and config.stages.memory.learning_rate == 1e-5


def test_every_mistake_is_named_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, STAGE + "sede: 1\ndata: {flip: 2, sources: [{kind: davis}], objects: 17}")
    message = str(caught.value)
    assert "unknown key 'sede'; did you mean 'seed'?" in message and "\n" not in message
    assert "data.objects is 17, expected at most 16" in message
    assert "sources[0]: root is missing" in message and "at least 1 item" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STAGE + "optimizer: {average: 0.9}", "unknown key 'optimizer.average'; its name is 'ema_decay' now"),
        ("stages: {memory: {steps: 3, final: 0.1}}", "'stages.memory.final'; its name is 'min_lr_ratio' now"),
    ],
)
def test_keys_of_an_older_version_are_told_their_new_names(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_a_checkpoint_s_older_configuration_is_read_under_the_new_names() -> None:
    stage = {"steps": 3, "rate": 0.5, "final": 0.25}
    older = {"stages": {"memory": stage, "deployment": None}, "optimizer": {"clip": 2.0}}
    config = loading.build(RunConfig, loading.with_new_names(older))
    assert config.stages.memory is not None and config.optimizer.max_grad_norm == 2.0
    assert (config.stages.memory.learning_rate, config.stages.memory.min_lr_ratio) == (0.5, 0.25)
