"""The report: what it shows of results that are known, and that a browser shows it."""

import dataclasses
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2lite_core.cli import app
from sam2lite_core.datasets.davis import Davis
from sam2lite_core.datasets.registry import find_dataset
from sam2lite_core.datasets.stress import Stress
from sam2lite_core.datasets.vos import Mose, YouTubeVos
from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.evaluation.evaluate import evaluate
from sam2lite_core.evaluation.policies import evaluate_policies
from sam2lite_core.evaluation.results import Evaluation
from sam2lite_core.media.label_map import write_label_map
from sam2lite_core.report.bags import bags
from sam2lite_core.report.inputs import BagRun, Inputs, read_inputs
from sam2lite_core.report.page import what_was_found, write_report
from sam2lite_core.report.plots import time_series
from sam2lite_core.report.sections import accuracy
from sam2lite_core.report.tradeoff import measured_energy, tradeoff
from sam2lite_core.report.views import TableView
from sam2lite_core.report.worst import worst_frames
from sam2lite_core.types import StepTimings, TrackResult
from sam2lite_core.variants import DEFAULT_POLICY, VARIANTS

for needed in ("jinja2", "matplotlib"):
    pytest.importorskip(needed, reason=f"needs {needed}: pip install 'sam2lite[report]'")

SIZE = 64
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
SECTIONS = [
    "accuracy",
    "sequences",
    "compare",
    "time",
    "policies",
    "stress",
    "bags",
    "memory",
    "latency",
    "tradeoff",
    "worst",
]


class CopyTracker:
    """Keeps the first mask: right until the object moves."""

    def reset(self):
        self.labels = np.zeros((SIZE, SIZE), np.uint8)

    def step(self, image, prompts=()):
        for prompt in prompts:
            self.labels[prompt.mask] = prompt.object_id
        return TrackResult(self.labels.copy(), (), StepTimings(inference_ms=5.0), memory_tokens_used=9)


@dataclasses.dataclass(frozen=True)
class CopyOptions:
    memory_policy: str = "fifo"
    memory_budget: int | None = None
    scale: float | None = 0.5
    variant: str = "tiny"

    def build(self):
        return CopyTracker()

    def describe(self):
        return {**dataclasses.asdict(self), "threads": None}


def square(left):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[20:36, left : left + 16] = 1
    return mask


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`<still>` (a name that HTML must escape) stays; `moving` jumps away after its fourth of eight frames."""
    root = tmp_path_factory.mktemp("davis")
    for name, lefts in (("<still>", [8] * 8), ("moving", [8] * 4 + [40] * 4)):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / name).mkdir(parents=True)
        for index, left in enumerate(lefts):
            image = np.full((SIZE, SIZE, 3), 90, np.uint8)
            assert cv2.imwrite(str(root / "JPEGImages" / name / f"{index:05d}.jpg"), image)
            write_label_map(root / "Annotations" / name / f"{index:05d}.png", square(left))
    return root


BENCH = {
    "machine": {"cpu": "a processor", "cores": 2},
    "settings": {},
    "latency": [
        {"variant": "tiny", "scale": scale, "objects": 1, "step_ms": {"p50": ms, "p95": 1.5 * ms, "p99": 2 * ms},
         "inference_ms": ms, "fps": 1000 / ms}
        for scale, ms in ((0.5, 20.0), (1.0, 60.0))
    ],
}  # fmt: skip


def bag_of(**changes):
    """What `eval bag` writes, as far as a report reads it."""
    return {
        "bag": "a bag", "topic": "/left", "rate": 2.0,
        "frames": {"in_bag": 100, "sent": 100, "received": 98, "processed": 90, "dropped": 8, "masks_recorded": 90},
        "deadline": {"ms": 25.0, "missed": 3, "share": 3 / 90},
        "latency_ms": {"age": {"p50": 11.0, "p95": 12.5, "p99": 20.25, "max": 31.0}},
        "score": {"processed": {"jf": 0.7}, "all_frames": {"jf": 0.68}, "offline": {"jf": 0.75}},
        "why": {"resolution_and_window": -0.04, "node": -0.01, "dropped_frames": -0.02},
        "machine": {"cpu": "a processor", "cores": 2}, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def results(data, tmp_path_factory):
    """One of everything that a report can show."""
    folder = tmp_path_factory.mktemp("results")
    evaluate(Davis(data), CopyOptions(), out=folder / "first")
    evaluate(Davis(data), CopyOptions(scale=1.0), out=folder / "second", masks=False)
    evaluate_policies(Davis(data), CopyOptions(), folder / "table", ["learned", "fifo"], [64, 256])
    (folder / "bench.json").write_text(json.dumps(BENCH))
    stress = {"long_occlusion": 0.5, "exit_return": 0.25}
    document = json.loads((folder / "first" / "davis.json").read_text())
    (folder / "stress").mkdir()
    (folder / "stress" / "stress.json").write_text(json.dumps({**document, "sets": stress}))
    (folder / "left").mkdir()
    (folder / "left" / "bag.json").write_text(json.dumps(bag_of()))
    assert cv2.imwrite(str(folder / "memory_timeline.png"), np.zeros((20, 30, 3), np.uint8))
    return folder


class Strict(HTMLParser):
    """Collects text by section, and fails where tags do not close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.images, self.links, self.text = [], [], [], [], {}
        self.section = None

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert len(given) == len(attributes), f"{tag} repeats an attribute"
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "section":
            self.section = given["id"]
        if tag == "img":
            assert given["alt"]
            self.images.append((self.section, given["src"]))
        self.links += [value for name, value in attributes if name in ("href", "src")]
        assert tag not in ("script", "iframe", "link")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text.setdefault(self.section, []).append(text.strip())


def parse(path):
    parser = Strict()
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    return parser


@pytest.fixture(scope="module")
def full(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report([results], out, title="Report & more", deadline_ms=33)
    return out


def test_the_page_is_strict_html_and_needs_nothing_beside_it(full):
    page = parse(full)
    assert page.ids == SECTIONS
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "Report & more" in " ".join(page.text[None])


def test_every_section_is_filled(full):
    page = parse(full)
    shown = {section for section, _ in page.images}
    assert shown == {"sequences", "time", "policies", "memory", "latency", "tradeoff", "worst"}
    assert not any("sam2lite eval" in " ".join(page.text[section]) for section in SECTIONS)
    words = {
        "accuracy": ["first", "tiny, ρ = 0.5, fifo", "table/learned-64", "DAVIS 2016"],
        "compare": ["<still>", "moving", "+0.0"],
        "policies": ["B = 64", "B = 256"],
        "stress": ["long occlusion", "50.0", "25.0"],
        "bags": ["left", "/left", "2×", "100", "90", "8", "25.0", "3", "31.0", "75.0", "-4.0", "-1.0", "70.0", "68.0"],
        "latency": ["a processor", "yes", "no", "A deadline of 33 ms"],
        "tradeoff": ["DAVIS 2016, against time", "Energy: not measured; sam2lite bench"],
        "worst": ["moving, frame 00004, object 1: J&F 0.0"],
    }
    for section, expected in words.items():
        text = " ".join(page.text[section])
        for word in expected:
            assert word in text, (section, word)


def test_sections_without_inputs_say_which_command_makes_them(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "b.json").write_text(json.dumps(BENCH))
    write_report([tmp_path], tmp_path / "out.html")
    page = parse(tmp_path / "out.html")
    for section, command in (
        ("accuracy", "sam2lite eval davis"),
        ("compare", "sam2lite eval davis"),
        ("time", "sam2lite eval policies"),
        ("policies", "sam2lite eval policies"),
        ("stress", "sam2lite eval stress"),
        ("bags", "sam2lite eval bag"),
        ("memory", "python -m sam2lite_core.report.figures.memory"),
        ("worst", "sam2lite eval davis"),
    ):
        assert command in " ".join(page.text[section]), section
    assert [section for section, _ in page.images] == ["latency"]


# --- accuracy against energy or time

ENERGY = {"rapl package-0": 30.0, "nvml": 12.5}


def run_of(folder, machine=None, **tracker):
    """The first run, of another tracker or machine."""
    document = json.loads((folder / "davis.json").read_text())
    document["settings"]["tracker"] |= {"backend": "auto", "memory_policy": DEFAULT_POLICY} | tracker
    document["machine"] = {"cpu": "a processor", "cores": 2} | (machine or {})
    return document


def bench_of(energy=ENERGY, cpu="a processor", **row):
    """A measurement of ρ = 0.5 and 1 with one object and with two, with figures at ρ = 0.5."""
    rows = [
        {**entry, "backend": "onnxruntime", "precision": "auto", "objects": count, **row}
        for entry in BENCH["latency"]
        for count in (1, 2)
    ]
    rows[0] |= {"energy_mj": energy}
    rows[1] |= {"energy_mj": {name: 9 * value for name, value in energy.items()}}
    return {**BENCH, "machine": {"cpu": cpu, "cores": 2}, "latency": rows, "energy": ", ".join(energy)}


def read(folder, runs, benches=()):
    """What a report finds in a folder with these documents."""
    for name, document in runs.items():
        (folder / name).mkdir()
        (folder / name / "davis.json").write_text(json.dumps(document))
    for index, document in enumerate(benches):
        (folder / f"{index}").mkdir()
        (folder / f"{index}" / "bench.json").write_text(json.dumps(document))
    return read_inputs([folder])


@pytest.mark.parametrize(
    ("tracker", "bench", "millijoules"),
    [
        ({}, {}, 42.5),
        ({"backend": "onnxruntime"}, {}, 42.5),
        ({"memory_budget": VARIANTS["tiny"].memory_budget}, {}, 42.5),
        ({"backend": "torch"}, {}, None),
        ({"scale": 1.0}, {}, None),
        ({"scale": None}, {}, None),
        ({"variant": "base"}, {}, None),
        ({"variant": "copy"}, {}, None),
        ({"memory_budget": 64}, {}, None),
        ({"memory_policy": "random"}, {}, None),
        ({"machine": {"cpu": "another"}}, {}, None),
        ({"machine": {"cores": 4}}, {}, None),
        ({}, {"precision": "int8"}, None),
        ({}, {"objects": 2}, None),
        ({}, {"energy": {}}, None),
    ],
)
def test_energy_is_taken_from_a_measurement_of_the_same(results, tmp_path, tracker, bench, millijoules):
    inputs = read(tmp_path, {"run": run_of(results / "first", **tracker)}, [bench_of(**bench)])
    energy = measured_energy(inputs.runs[0], inputs.benches)
    assert (energy and energy.millijoules) == millijoules
    if energy:
        assert energy.meters == ("rapl package-0", "nvml")


def test_auto_has_no_energy_where_several_backends_were_measured(results, tmp_path):
    both = bench_of()
    both["latency"] = [*both["latency"], {**both["latency"][0], "backend": "torch"}]
    runs = {"auto": run_of(results / "first"), "torch": run_of(results / "first", backend="torch")}
    inputs = read(tmp_path, runs, [both])
    found = {run.name: measured_energy(run, inputs.benches) for run in inputs.runs}
    assert found["auto"] is None
    assert found["torch"].millijoules == 42.5


def test_energy_is_shown_where_it_was_measured_and_time_for_all(results, tmp_path):
    runs = {
        "half": run_of(results / "first"),
        "whole": run_of(results / "first", scale=1.0),
        "board": run_of(results / "first", machine={"cpu": "a board"}),
    }
    benches = [bench_of(), bench_of({"jetson VDD_IN": 7.25}, cpu="a board")]
    section = tradeoff(read(tmp_path, runs, benches))
    assert [picture.caption for picture in section.pictures] == [
        "DAVIS 2016, against energy, measured with jetson VDD_IN",
        "DAVIS 2016, against energy, measured with rapl package-0 + nvml",
        "DAVIS 2016, against time",
    ]
    (table,) = section.tables
    assert {row[0]: tuple(row[3:]) for row in table.rows} == {
        "board": ("7.2", "jetson VDD_IN", "1"),
        "half": ("42.5", "rapl package-0 + nvml", "0"),
        "whole": ("–", "–", "–"),
    }
    assert section.note == ""
    write_report([tmp_path], tmp_path / "out.html")
    page = parse(tmp_path / "out.html")
    assert [section for section, _ in page.images].count("tradeoff") == 3


@pytest.mark.parametrize(
    ("benches", "why"),
    [
        ([], "not measured; sam2lite bench"),
        ([{**BENCH, "energy": "not measurable here: no RAPL counter"}], "not measurable here: no RAPL counter"),
        ([bench_of(cpu="another")], "no run has the processor"),
    ],
)
def test_the_report_says_why_it_shows_time(results, tmp_path, benches, why):
    section = tradeoff(read(tmp_path, {"run": run_of(results / "first")}, benches))
    assert section.note.startswith(f"Against time. Energy: {why}")
    assert [picture.caption for picture in section.pictures] == ["DAVIS 2016, against time"]
    assert not section.tables


def test_worst_frames_are_the_lowest_one_a_sequence(results):
    run = next(run for run in read_inputs([results]).runs if run.name == "first")
    worst = worst_frames(run)
    assert [(entry.sequence, entry.frame, entry.score) for entry in worst] == [
        ("moving", "00004", 0),
        ("<still>", "00001", 1),
    ]


def test_time_runs_over_the_share_of_the_video(results):
    """Frames 1 to 6 of 8 lie at 1/7 to 6/7; the moving object is lost from 4/7 on."""
    run = read_inputs([results]).runs[0]
    at, scores = time_series(run)
    found = {round(float(x), 3): y for x, y in zip(at, scores, strict=True) if not np.isnan(y)}
    assert found == {0.125: 1, 0.275: 1, 0.425: 1, 0.575: 0.5, 0.725: 0.5, 0.875: 0.5}


def test_runs_are_named_by_their_folders(results):
    inputs = read_inputs([results / "first", results / "table", results / "first"])
    assert [run.name for run in inputs.runs][:1] == ["first"]
    assert {"fifo-64", "learned-256", "first (2)"} <= {run.name for run in inputs.runs}


def test_runs_that_lost_their_data_show_no_worst_frames(results, tmp_path):
    document = json.loads((results / "first" / "davis.json").read_text())
    document["settings"]["data"]["root"] = str(tmp_path / "gone")
    (tmp_path / "run" / "masks").mkdir(parents=True)
    (tmp_path / "run" / "davis.json").write_text(json.dumps(document))
    write_report([tmp_path / "run"], tmp_path / "out.html")
    assert "no such folder" in " ".join(parse(tmp_path / "out.html").text["worst"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no result in there"),
        ("{", r"x\.json: cannot be read"),
        ("[1]", "no result in there"),
        ('{"protocol": 1, "settings": {}, "sequences": [1]}', r"x\.json: a damaged result"),
        ('{"bag": "b", "topic": "/t", "frames": {}, "score": {}}', r"x\.json: a damaged result"),
    ],
)
def test_folders_without_results_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(SourceError, match=message):
        write_report([tmp_path], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["59.9", "–", "+0.0", "-4.0"], "number"),
        (["0.25×", "2×"], "number"),
        ([], "number"),
        (["yes", "no"], "text"),
        (["–", "/camera/image_raw"], "text"),
    ],
)
def test_columns_of_numbers_are_set_as_such(cells, kind):
    assert TableView(("run", "x"), [("a", cell) for cell in cells]).kinds == ["name", kind]


def test_short_clips_show_no_drift(results):
    """Of eight frames, whatever an earlier version wrote of them."""
    document = json.loads((results / "first" / "davis.json").read_text())
    for entry in document["sequences"]:
        entry["stability"]["drift"] = -70.0
    run = dataclasses.replace(read_inputs([results / "first"]).runs[0], evaluation=Evaluation.from_json(document))
    (table,) = accuracy(Inputs(runs=[run])).tables
    assert dict(zip(table.columns, table.rows[0], strict=True))["drift"] == "–"
    assert "scored on 300 frames or more" in table.caption


def test_bags_without_deadline_or_score_show_dashes(tmp_path):
    nothing = {"processed": {"jf": None}, "all_frames": {"jf": None}, "offline": {"jf": None}}
    limit = {"ms": None, "missed": 0, "share": 0.0}
    document = bag_of(score=nothing, why=None, deadline=limit, latency_ms={})
    (tmp_path / "bag.json").write_text(json.dumps(document))
    times, scores = bags(read_inputs([tmp_path])).tables
    assert times.rows[0][3:] == ("100", "2", "90", "8", *["–"] * 6)
    assert scores.rows[0][1:] == ("–",) * 6


def test_results_of_one_name_are_all_shown(tmp_path):
    """Three folders of the same name, one after the other."""
    folders = [tmp_path / parent / "same" for parent in "abc"]
    table = {"protocol": "DAVIS 2016", "policies": [{"policy": "fifo", "budget": 64, "jf": 0.5}]}
    for folder in folders:
        folder.mkdir(parents=True)
        for name, document in (("bench", BENCH), ("policies", table), ("bag", bag_of())):
            (folder / f"{name}.json").write_text(json.dumps(document))
    inputs = read_inputs(folders)
    assert list(inputs.bags) == list(inputs.policies) == ["same", "same (2)", "same (3)"]
    assert len(inputs.benches) == 3


def test_a_file_can_be_given_by_itself(results):
    given = [results / "left" / "bag.json", results / "bench.json", results / "first" / "davis.json"]
    inputs = read_inputs(given)
    assert (list(inputs.bags), [run.name for run in inputs.runs]) == (["left"], ["first"])
    assert inputs.benches == {results.name: BENCH}
    assert inputs.runs[0].masks == results / "first" / "masks"


def unfinished(folder):
    (folder / "run.unfinished" / "sequences").mkdir(parents=True)
    for name in ("settings.json", "sequences/one.json"):
        (folder / "run.unfinished" / name).write_text("{}")
    return folder / "run.unfinished", "an unfinished run; the command that started it goes on with it"


def another_file(folder):
    (folder / "peers.json").write_text('{"machine": {}, "settings": {}, "rows": []}')
    return (folder / "peers.json", "no evaluation, table of policies, bag or measurement of speed that a report shows")


@pytest.mark.parametrize("make", [unfinished, another_file])
def test_what_cannot_be_shown_is_listed_and_refused_where_it_is_all(results, tmp_path, make, capsys):
    (tmp_path / "more").mkdir()
    left, why = make(tmp_path / "more")
    with pytest.raises(SourceError) as caught:
        read_inputs([results, left])
    assert str(caught.value) == f"{left}: {why}"
    with pytest.raises(SourceError, match=f"more: no result in there; {left.name} is {why}"):
        read_inputs([results, tmp_path / "more"])
    (tmp_path / "more" / "bench.json").write_text(json.dumps(BENCH))
    with pytest.raises(SystemExit) as end:
        app.main(["report", str(tmp_path / "more"), "--out", str(tmp_path / "r.html")])
    assert not end.value.code
    assert f"{left}: not shown: {why}\n" in capsys.readouterr().err
    text = " ".join(parse(tmp_path / "r.html").text["left-out"])
    assert str(left) in text and why in text


def test_bad_arguments_are_refused(results, tmp_path):
    with pytest.raises(SourceError, match="nowhere: no such folder or file"):
        write_report([tmp_path / "nowhere"], tmp_path / "out.html")
    with pytest.raises(ConfigurationError, match="deadline 0 ms is not positive"):
        write_report([results], tmp_path / "out.html", deadline_ms=0)


@pytest.mark.parametrize(
    "dataset", [Davis(Path("/data"), 2017), YouTubeVos(Path("/data")), Mose(Path("/data")), Stress(("exit_return",), 2)]
)
def test_datasets_are_found_again_from_what_results_say(dataset):
    assert find_dataset(json.loads(json.dumps(dataset.describe()))) == dataset


def test_foreign_descriptions_are_refused():
    with pytest.raises(SourceError, match="'lvos' is missing or unknown"):
        find_dataset({"layout": "lvos"})


def test_the_command_writes_the_page(results, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        app.main(["report", str(results), "--out", str(tmp_path / "r.html"), "--title", "Mine"])
    assert not end.value.code
    assert "Mine" in parse(tmp_path / "r.html").text[None]
    said = "7 evaluations, 1 table of policies, 1 bag, 1 measurement of speed, 1 picture of the memory"
    assert capsys.readouterr().out == f"{said} in {tmp_path / 'r.html'}\n"


def test_what_was_found_is_counted_in_words():
    bag = BagRun.from_json(bag_of())
    one = Inputs(benches={"b": BENCH}, bags={"a": bag})
    assert what_was_found(one) == ["1 bag", "1 measurement of speed"]
    more = Inputs(bags={"a": bag, "b": bag}, policies={"a": {}, "b": {}}, benches={"b": BENCH, "c": BENCH})
    assert what_was_found(more) == ["2 tables of policies", "2 bags", "2 measurements of speed"]
    assert what_was_found(Inputs()) == []


def test_a_browser_shows_the_page(full, tmp_path):
    pytest.importorskip("PyQt6", reason="needs a browser: pip install PyQt6-WebEngine")
    browse = Path(__file__).with_name("browse.py")
    shot = tmp_path / "page.png"
    run = subprocess.run(
        [sys.executable, str(browse), str(full), str(shot)], capture_output=True, text=True, timeout=120
    )
    if "ImportError" in run.stderr:
        pytest.skip(f"the browser lacks a library of the system: {run.stderr.splitlines()[-1]}")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["title"] == "Report & more"
    assert found["mode"] == "CSS1Compat"
    assert len(found["headings"]) == len(SECTIONS)
    assert found["decoded"] == found["images"] == 8
    assert found["broken"] == 0
    assert found["clipped"] == 0, "every table fits a window of 1280"
    assert found["content"] <= found["window"]
    assert (found["console"], found["elsewhere"], found["missing"]) == ([], [], [])
    picture = cv2.imread(str(shot))
    assert picture.shape[1] >= 1280
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # something was painted
