"""The documentation: every relative link resolves, and what README and docs repeat from the code is true."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page
    for page in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("training/**/*.md"),
        *ROOT.glob("sam2lite_core/**/*.md"),
    )
)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
README_LINES = 130


def text_of(page: Path) -> str:
    """Read a page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """List the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(text_of(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_the_index_names_every_guide() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    guides = [page for page in PAGES if ROOT / "docs" in page.parents and page.name != "README.md"]
    assert [str(page.relative_to(ROOT)) for page in guides if f"({page.relative_to(ROOT / 'docs')})" not in index] == []


def flat(parameters: dict, prefix: str = "") -> dict[str, object]:
    """Name nested parameters as ROS does, with dots."""
    named: dict[str, object] = {}
    for key, value in parameters.items():
        named |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return named


def test_the_table_of_parameters_has_the_defaults_of_the_node() -> None:
    defaults = flat(yaml.safe_load((ROOT / "config/tracker.yaml").read_text())["/**"]["ros__parameters"])
    section = (ROOT / "docs/robot.md").read_text(encoding="utf-8").split("## Parameters")[1].split("\n## ")[0]
    listed = {}
    for names, values in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", section, re.MULTILINE):
        for name, value in zip(names.split(", "), values.split(", "), strict=False):
            listed[name.strip("`")] = yaml.safe_load(value.strip("`"))
    assert {name: value for name, value in listed.items() if value != "none"} == defaults


def test_the_model_card_has_front_matter_that_hugging_face_reads() -> None:
    card = (ROOT / "sam2lite_core/weights/MODEL_CARD.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert {"license", "library_name", "pipeline_tag", "tags", "metrics", "model-index"} <= set(metadata)
    for model in metadata["model-index"]:
        assert all({"task", "dataset", "metrics"} <= set(result) for result in model["results"])
