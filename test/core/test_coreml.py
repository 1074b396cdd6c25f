"""Core ML packages hold what the graphs have. Running them needs an Apple device, and is not tested here."""

import dataclasses
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[export]'")

from sam2lite_core import graph_io
from sam2lite_core.errors import ConfigurationError, ModelFileError
from sam2lite_core.export import coreml
from sam2lite_core.model.student import Student
from sam2lite_core.variants import VARIANTS, get_variant


def test_without_coremltools_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(ConfigurationError, match=r"Core ML needs coremltools: .*sam2lite\[coreml\]"):
        coreml.load_tools()


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_packages_are_converted_saved_and_loaded_again(tmp_path, name) -> None:
    """In their true widths, with one block and one decoder layer: the others only repeat them."""
    pytest.importorskip("coremltools", reason="needs coremltools: pip install 'sam2lite[coreml]'")
    student = Student(dataclasses.replace(get_variant(name), depth=1, decoder_layers=1)).eval()
    report = coreml.export_coreml(student, tmp_path / "model", scale=0.5, objects=2)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["prompt.mlpackage", "step.mlpackage"]
    step, prompt = (report["packages"][key] for key in (coreml.STEP_PACKAGE, coreml.PROMPT_PACKAGE))
    assert tuple(step["inputs"]) == graph_io.STEP_INPUTS and tuple(prompt["inputs"]) == graph_io.PROMPT_INPUTS
    assert step["inputs"]["image"] == [1, 240, 432, 3] and step["inputs"]["token_rows"] == [1, 15, 15]
    assert step["inputs"]["bank_identity"] == [1, student.variant.memory_budget, 2]
    assert step["outputs"]["logits"] == [1, 2, 60, 108] and report["parity"] is None
    if name == "tiny":
        with pytest.raises(ModelFileError, match="inputs mask_given, masks, prompted, prompts differ"):
            coreml.check_package(tmp_path / "model" / coreml.STEP_PACKAGE, prompt=True)
