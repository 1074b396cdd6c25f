"""The TensorRT backend without a GPU: engines on disk, what is refused, and the order of its calls.

`MockCuda` and `MockTrt` stand in for the device: memory is the host's, queued work runs when somebody waits for it, and
ONNX Runtime computes what the engine would. They show that the backend asks for the right things in the right order.
They show nothing about a GPU: that is `test_on_a_gpu`, which needs one.
"""

import ctypes
import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sam2lite_core.backends import registry
from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.model_files import STEP_FILE, WEIGHTS_FILE, find_model, read_weights_info
from sam2lite_core.backends.onnxruntime import OnnxRuntimeBackend, open_session
from sam2lite_core.backends.tensorrt import backend as tensorrt
from sam2lite_core.backends.tensorrt import cuda
from sam2lite_core.backends.tensorrt.build import RANGES
from sam2lite_core.backends.tensorrt.cuda import Gpu
from sam2lite_core.backends.tensorrt.engines import EngineKey, engine_folder, engine_key, load_or_build, pack, unpack
from sam2lite_core.bench.parts import shown, step_inputs
from sam2lite_core.errors import BackendError
from sam2lite_core.variants import get_variant

KEY = EngineKey("g", "w", 256, {"rows": [8, 30, 64]}, "tensorrt", "10.3.0", "Orin", "SM87")


# --- a device that is simulated on the CPU


class MockCuda:
    """Host memory as the device's; what is queued runs in order when somebody waits."""

    def __init__(self) -> None:
        self.gpu, self.stream = Gpu(0, "a mock, no GPU", "SM00"), 7
        self.blocks: dict[int, np.ndarray] = {}
        self.queue: list = []
        self.recording: list | None = None
        self.replays = 0

    def activate(self) -> None:
        pass

    def allocate(self, size: int) -> int:
        block = np.zeros(max(size, 1), np.uint8)
        self.blocks[block.ctypes.data] = block
        return block.ctypes.data

    def pinned(self, size: int) -> np.ndarray:
        return self.blocks[self.allocate(size)]

    def free(self, address: int) -> None:
        del self.blocks[address]

    def put(self, work) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def zero(self, address: int, size: int) -> None:
        self.put(lambda: ctypes.memset(address, 0, size))

    def upload(self, address: int, host: np.ndarray) -> None:
        self.put(lambda: ctypes.memmove(address, host.ctypes.data, host.nbytes))

    def download(self, host: np.ndarray, address: int) -> None:
        self.put(lambda: ctypes.memmove(host.ctypes.data, address, host.nbytes))

    def copy(self, target: int, source: int, size: int) -> None:
        self.put(lambda: ctypes.memmove(target, source, size))

    def wait(self) -> None:
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def capture(self, work):
        self.recording = []
        work()
        recorded, self.recording = self.recording, None

        def replay() -> None:
            self.replays += 1
            self.queue.extend(recorded)

        return replay


class MockContext:
    def __init__(self, engine) -> None:
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_optimization_profile_async(self, index: int, stream: int) -> None:
        assert (index, stream) == (0, 7)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        _, k, h, w = self.shapes["warped"]
        table = {"logits": (1, k, h, w), "presence": (1, k), "uncertainty": (1, 1, h // 4, w // 4)}
        return table.get(name, (1,))

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        if self.engine.fails:
            return False
        shapes, addresses = (dict(self.shapes), dict(self.addresses))  # a recording holds the addresses of its time
        self.engine.cuda.put(lambda: self.engine.compute(shapes, addresses))
        return True


class MockEngine:
    def __init__(self, path: str, device: MockCuda) -> None:
        # As our other backend opens it: the two are compared bit for bit.
        self.session, self.cuda, self.fails = open_session(Path(path), 1), device, False
        self.names = [v.name for v in (*self.session.get_inputs(), *self.session.get_outputs())]
        self.types = {v.name: np.uint8 if "uint8" in v.type else np.float32 for v in self.session.get_inputs()}
        self.declared = {v.name: v.shape for v in self.session.get_inputs()}
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.types else "out"

    def get_tensor_dtype(self, name: str):
        return self.types.get(name, np.float32)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(n if isinstance(n, int) else -1 for n in self.declared[name])

    def get_tensor_profile_shape(self, name: str, profile: int):
        fixed = [n if isinstance(n, int) else (256 if name.startswith("bank_") else None) for n in self.declared[name]]
        rows, columns, k = (2, 30, 30), (2, 54, 54), (1, 1, 2)
        sizes = []
        for size in range(3):
            h, w = rows[size], columns[size]
            free = {
                "image": (1, 16 * h, 16 * w, 3),
                "motion": (1, 1, h, w),
                "slots": (1, k[size], 16),
                "token_rows": (1, (2, 15, 15)[size], h),
                "token_columns": (1, (2, 27, 27)[size], w),
                "prompts": (1, k[size], 3, 4 * h, 4 * w),
                "mask_given": (1, k[size]),
                "prompted": (1, k[size]),
            }
            fine = (1, k[size], 4 * h, 4 * w)
            sizes.append(tuple(fixed) if None not in fixed else free.get(name, fine))
        return sizes

    def create_execution_context(self) -> MockContext:
        return MockContext(self)

    def compute(self, shapes, addresses) -> None:
        feeds = {name: memory(addresses[name], shapes[name], self.types[name]).copy() for name in self.types}
        for value, array in zip(self.session.get_outputs(), self.session.run(None, feeds), strict=True):
            memory(addresses[value.name], array.shape, np.float32)[...] = array


def memory(address: int, shape: tuple[int, ...], dtype) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)


class MockTrt(SimpleNamespace):
    def __init__(self, device: MockCuda) -> None:
        def logger(_):
            return None

        logger.ERROR = 0
        runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: MockEngine(data.decode(), device))
        super().__init__(
            __name__="mock_trt",
            __version__="0",
            Logger=logger,
            Runtime=lambda _: runtime,
            TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
            nptype=lambda dtype: dtype,
        )


@pytest.fixture
def mocked(tmp_path, monkeypatch):
    """The backend on the mocked device, with the shipped model; and ONNX Runtime with the same."""
    folder = shutil.copytree(find_model(get_variant("tiny"), None), tmp_path / "model")
    built = []

    def build(trt, path: Path, slots: int, timings: bytes) -> tuple[bytes, bytes]:
        built.append(path.name)
        return str(path).encode(), b"timings"

    monkeypatch.setattr(tensorrt, "build", build)
    device = MockCuda()
    settings = BackendSettings(folder, 256, threads=1)

    def make():
        return tensorrt.TensorRtBackend(settings, MockTrt(device), device)

    return SimpleNamespace(make=make, device=device, built=built, folder=folder, settings=settings)


def frame(seed: int, prompted: bool = False, scale: float = 0.5):
    inputs = step_inputs(scale, 256, 16, np.random.default_rng(seed))
    inputs = dataclasses.replace(inputs, frame=seed)
    return dataclasses.replace(inputs, prompt=shown(inputs)) if prompted else inputs


def same(first, second) -> bool:
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.slow
def test_frames_run_in_order_and_are_replayed_once_known(mocked) -> None:
    backend, reference = mocked.make(), OnnxRuntimeBackend(mocked.settings)
    for index in range(7):
        inputs = frame(index, prompted=index == 0)
        assert same(backend.step(inputs), reference.step(inputs)), f"frame {index}"
        assert same(backend.bank(), reference.bank()), f"bank after frame {index}"
    # Two banks take turns: frames 1 and 2 are new, 3 and 4 are recorded, 5 and 6 replayed.
    assert mocked.device.replays == 2
    blocks = len(mocked.device.blocks)
    restore = backend.keep()
    before = backend.bank()
    for index in range(3):
        backend.step(frame(20 + index))
    assert not same(backend.bank(), before)
    restore()
    assert same(backend.bank(), before)
    del restore
    assert len(mocked.device.blocks) == blocks
    backend.reset()
    assert not backend.bank().key.any()


@pytest.mark.slow
def test_a_failed_step_leaves_the_bank(mocked) -> None:
    backend = mocked.make()
    backend.step(frame(0, prompted=True))
    before = backend.bank()
    backend._step.engine.fails = True
    with pytest.raises(BackendError, match="TensorRT could not run the graph"):
        backend.step(frame(1))
    assert same(backend.bank(), before)
    large = frame(2)
    with pytest.raises(BackendError, match=r"input image of shape \(1, 992, .* is outside .* choose another scale"):
        backend.step(dataclasses.replace(large, image=np.zeros((992, 432, 3), np.uint8)))
    assert same(backend.bank(), before)


@pytest.mark.slow
def test_engines_are_built_once_and_again_when_the_model_changes(mocked) -> None:
    mocked.make()
    assert mocked.built == ["step.onnx", "prompt.onnx"]
    mocked.make()
    assert len(mocked.built) == 2
    engine = next((mocked.folder / "engines").glob("step-256-*.engine"))
    engine.write_bytes(engine.read_bytes()[:-1])
    mocked.make()
    assert mocked.built[2:] == ["step.onnx"]


# --- engines on disk


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "10.4.0"}, "version was 10.3.0, is 10.4.0"),
        ({"gpu": "RTX 4090", "capability": "SM89"}, "capability was SM87, is SM89; gpu was Orin, is RTX 4090"),
        ({"graph": "other"}, "graph was g, is other"),
        ({"weights": "other"}, "weights was w, is other"),
        ({"slots": 512}, "slots was 256, is 512"),
        ({"ranges": {"rows": [8, 30, 65]}}, "ranges was"),
        ({"module": "tensorrt_rtx_bindings"}, "module was tensorrt,"),
        ({"layout": 2}, "layout was 1, is 2"),
    ],
)
def test_whatever_an_engine_depends_on_makes_it_stale(change, reason) -> None:
    content = pack(KEY, b"engine")
    assert unpack(content, KEY) == (b"engine", "")
    engine, why = unpack(content, dataclasses.replace(KEY, **change))
    assert engine is None and reason in why


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (b"a plan of another tool, and long enough to have a header", "not an engine's file"),
        (pack(KEY, b"engine")[:-1], "cut short or damaged"),
        (pack(KEY, b"engine")[:30], "damaged"),
        (pack(KEY, b"engine").replace(b"engine", b"angine"), "cut short or damaged"),
    ],
)
def test_damaged_engines_are_never_handed_out(content, reason) -> None:
    engine, why = unpack(content, KEY)
    assert engine is None and reason in why


def test_an_engine_is_stored_with_its_timings(tmp_path, caplog) -> None:
    graph = tmp_path / STEP_FILE
    graph.write_bytes(b"graph")
    given = []

    def build(path: Path, timings: bytes) -> tuple[bytes, bytes]:
        given.append(timings)
        return b"engine %d" % len(given), b"timings %d" % len(given)

    folder = tmp_path / "engines"
    assert load_or_build(graph, KEY, folder, build) == b"engine 1"
    assert load_or_build(graph, KEY, folder, build) == b"engine 1"
    newer = dataclasses.replace(KEY, graph="newer")
    assert load_or_build(graph, newer, folder, build) == b"engine 2"
    assert given == [b"", b"timings 1"]
    assert "graph was g, is newer" in caplog.text
    names = ["step-256-SM87-tensorrt.engine", "timing-tensorrt-10.3.0-SM87.cache"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_failed_build_leaves_the_stored_engine(tmp_path) -> None:
    graph = tmp_path / STEP_FILE
    graph.write_bytes(b"graph")
    load_or_build(graph, KEY, tmp_path / "engines", lambda *_: (b"engine", b"timings"))

    def fail(*_):
        raise BackendError("out of memory")

    with pytest.raises(BackendError):
        load_or_build(graph, dataclasses.replace(KEY, graph="newer"), tmp_path / "engines", fail)
    assert load_or_build(graph, KEY, tmp_path / "engines", fail) == b"engine"


def test_engines_lie_beside_the_model_or_in_the_cache(tmp_path, monkeypatch) -> None:
    assert engine_folder(tmp_path, "abc") == tmp_path / "engines"
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert engine_folder(tmp_path, "0123456789abcdefgh") == tmp_path / "cache/sam2lite/engines/0123456789abcdef"


def test_a_key_says_what_is_here() -> None:
    folder = find_model(get_variant("tiny"), None)
    weights = read_weights_info(folder / WEIGHTS_FILE).weights_sha256
    trt = SimpleNamespace(__name__="tensorrt", __version__="10.3.0")
    key = engine_key(folder / STEP_FILE, weights, 256, RANGES, trt, Gpu(0, "Orin", "SM87"))
    assert (key.module, key.version, key.gpu, key.capability, key.slots) == (
        *("tensorrt", "10.3.0", "Orin", "SM87"),
        256,
    )
    assert key.ranges["rows"] == [8, 30, 64] and len(key.graph) == 64 and key.weights == weights


# --- choosing it


@pytest.mark.parametrize(
    ("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:3", 3), ("cpu", None), ("cuda:x", None)]
)
def test_device_names(device, index) -> None:
    if index is None:
        with pytest.raises(BackendError, match=f"no device '{device}'; choose auto, cuda or cuda:N"):
            tensorrt.device_index(device)
    else:
        assert tensorrt.device_index(device) == index


@pytest.mark.parametrize(
    ("installed", "gpus", "chosen"),
    [
        ({"tensorrt", "onnxruntime"}, 1, "tensorrt"),
        ({"tensorrt_rtx_bindings", "onnxruntime"}, 2, "tensorrt"),
        ({"tensorrt", "onnxruntime"}, 0, "onnxruntime"),
        ({"onnxruntime", "torch"}, 1, "onnxruntime"),
        ({"torch"}, 1, "torch"),
        (set(), 1, None),
    ],
)
def test_auto_takes_tensorrt_only_with_a_gpu(monkeypatch, installed, gpus, chosen) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(cuda, "count_gpus", lambda: gpus)
    opened = []

    def load(module: str):
        opened.append(module)
        return SimpleNamespace(**{entry.class_name: lambda settings: module for entry in registry.REGISTRY.values()})

    monkeypatch.setattr(registry.importlib, "import_module", load)
    settings = BackendSettings(Path("nowhere"), 64)
    if chosen is None:
        with pytest.raises(BackendError, match="no backend is installed"):
            registry.open_backend("auto", settings)
    else:
        registry.open_backend("auto", settings)
        assert opened == [registry.REGISTRY[chosen].module]


def test_without_a_gpu_it_says_so(monkeypatch) -> None:
    folder = find_model(get_variant("tiny"), None)
    monkeypatch.setattr(tensorrt, "find_module", lambda: None)
    with pytest.raises(BackendError, match="needs one of the packages tensorrt or tensorrt_rtx_bindings"):
        tensorrt.TensorRtBackend(BackendSettings(folder, 256))
    trt = SimpleNamespace()
    with pytest.raises(BackendError, match=r"holds fp32 graphs, not 'fp16'; .*--format tensorrt --precision fp16"):
        tensorrt.TensorRtBackend(BackendSettings(folder, 256, precision="fp16"), trt)
    monkeypatch.setattr(cuda, "installed", lambda: False)
    with pytest.raises(BackendError, match="needs the package cuda-bindings"):
        tensorrt.TensorRtBackend(BackendSettings(folder, 256), trt)
    monkeypatch.setattr(cuda, "installed", lambda: True)
    monkeypatch.setattr(cuda, "count_gpus", lambda: 1)
    monkeypatch.setattr(cuda.importlib, "import_module", lambda _: None)
    with pytest.raises(BackendError, match="device 'cuda:4' is not there: CUDA sees 1 GPUs"):
        tensorrt.TensorRtBackend(BackendSettings(folder, 256, device="cuda:4"), trt)


@pytest.mark.gpu
@pytest.mark.skipif(not tensorrt.available(), reason="needs a GPU, TensorRT (or TensorRT for RTX) and cuda-bindings")
def test_on_a_gpu(tmp_path) -> None:
    folder = shutil.copytree(find_model(get_variant("tiny"), None), tmp_path / "model")
    settings = BackendSettings(folder, 256, threads=1)
    backend, reference = tensorrt.TensorRtBackend(settings), OnnxRuntimeBackend(settings)
    for index in range(7):
        inputs = frame(index, prompted=index == 0)
        ours, theirs = backend.step(inputs), reference.step(inputs)
        assert np.abs(ours.logits - theirs.logits).max() < 0.05, f"frame {index}"
        assert ours.tokens_used == theirs.tokens_used
