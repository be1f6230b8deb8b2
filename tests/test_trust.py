"""Files that mean harm, and what is never done: unpickling, fetching, loading what is unchecked."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from conftest import PHOTO, ROOT
from foreign_graphs import node, repeat, save, with_weights_beside
from onnx import helper

from agsr.contract import ModelMetadata
from agsr.engines.foreign import ForeignBackend
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.tensorrt.api import TensorRt
from agsr.engines.tensorrt.builder import build_engine
from agsr.engines.tensorrt.options import BuildOptions
from agsr.errors import ModelError
from agsr.pretrained import WEIGHTS_FOLDER, find_onnx

SOURCES = [
    path
    for folder in ("agsr", "bench", "engines", "export")
    for path in (ROOT / folder).rglob("*.py")
]
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
READS_PICKLES = "plain_pickle.py"
"""Its unpickler resolves a few names to stand-ins; see tests/engines/community."""
Claim = Callable[[Path], Path]


@pytest.fixture
def claim() -> Claim:
    """Makes a foreign file say that it is ours."""
    given = ModelMetadata(
        steps=1, precision="fp32", receptive_radius=3, config="{}", weights_hash="", version=""
    )

    def write(path: Path) -> Path:
        model = onnx.load(path, load_external_data=False)
        helper.set_model_props(model, given.to_properties())
        onnx.save(model, path)
        return path

    return write


def _refuses_everywhere(path: Path, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every backend, before ONNX Runtime or TensorRT see the file."""
    monkeypatch.setattr("agsr.engines.runtimes.onnxruntime_backend.open_session", _never)
    monkeypatch.setattr("agsr.engines.foreign.backend.open_session", _never)
    for load in (OrtBackend, ForeignBackend):
        with pytest.raises(ModelError, match=message):
            load(path)
    trt = TensorRt(None, "tensorrt-rtx")
    with pytest.raises(ModelError, match=message):
        build_engine(trt, path.read_bytes(), str(path), BuildOptions())


def _never(*_: object, **__: object) -> None:
    raise AssertionError("it was loaded unchecked")


def test_unknown_operators_are_rejected_before_anything_loads_them(
    tmp_path: Path, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    custom = node("Run", ["picture"], ["enlarged"], domain="acme.magic")
    path = claim(save(tmp_path / "a.onnx", [custom], domain="acme.magic"))
    _refuses_everywhere(path, r"custom operators acme\.magic::Run", monkeypatch)


@pytest.mark.parametrize("hidden", [False, True])
def test_compiled_code_is_rejected_even_in_a_branch(
    tmp_path: Path, claim: Claim, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    blob = node("EPContext", ["picture"], ["enlarged"], domain="com.microsoft", embed_mode=0,
                ep_cache_context="../blob")  # fmt: skip
    if hidden:
        result = helper.make_tensor_value_info("enlarged", onnx.TensorProto.FLOAT, [None] * 4)
        branch = helper.make_graph([blob], "branch", [], [result])
        blob = node("If", ["yes"], ["enlarged"], then_branch=branch, else_branch=branch)
    path = claim(save(tmp_path / "a.onnx", [blob], domain="com.microsoft"))
    _refuses_everywhere(path, "code compiled for a device", monkeypatch)


@pytest.mark.parametrize("location", ["../weights", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", "a\0b"])
@pytest.mark.parametrize("place", ["initializer", "attribute", "empty branch", "sparse"])
def test_values_from_elsewhere_are_rejected_wherever_they_are(
    tmp_path: Path, claim: Claim, monkeypatch: pytest.MonkeyPatch, location: str, place: str
) -> None:
    (tmp_path / "in").mkdir()
    path = claim(with_weights_beside(tmp_path / "in" / "a.onnx"))
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[1]
    next(e for e in tensor.external_data if e.key == "location").value = location
    if place != "initializer":
        moved = onnx.TensorProto()
        moved.CopyFrom(tensor)
        del model.graph.initializer[1]
        model.graph.node.insert(0, _holding(moved, place))
    onnx.save(model, path)
    monkeypatch.setattr("agsr.engines.runtimes.onnxruntime_backend.open_session", _never)
    monkeypatch.setattr("agsr.engines.foreign.backend.open_session", _never)
    with pytest.raises(ModelError, match="has weights in other files"):
        OrtBackend(path)
    with pytest.raises(ModelError, match=r"references weights (in|at an address)"):
        ForeignBackend(path)


def _holding(tensor: onnx.TensorProto, place: str) -> onnx.NodeProto:
    """A node that holds a tensor somewhere else than among the graph's initializers."""
    if place == "attribute":
        return node("Constant", [], ["same"], value=tensor)
    if place == "sparse":
        sparse = helper.make_sparse_tensor(tensor, tensor, [3, 3])
        return node("Constant", [], ["same"], sparse_value=sparse)
    branch = helper.make_graph([], "branch", [], [], [tensor])
    return node("If", ["yes"], ["same"], then_branch=branch, else_branch=branch)


def test_nothing_is_unpickled_but_names_and_shapes_by_stand_ins() -> None:
    assert len(SOURCES) > 200
    assert [path for path in SOURCES if path.name == READS_PICKLES]
    for path in SOURCES:
        for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(found, ast.Import):
                names = [alias.name for alias in found.names]
            elif isinstance(found, ast.ImportFrom):
                names = [found.module or ""]
            allowed = {"pickle"} if path.name == READS_PICKLES else set()
            assert UNPICKLERS & {name.partition(".")[0] for name in names} <= allowed, path
            if allowed and isinstance(found, ast.Attribute):
                is_of_pickle = isinstance(found.value, ast.Name) and found.value.id == "pickle"
                is_opcode = found.attr.isupper()  # a constant; the class is subclassed
                assert not is_of_pickle or is_opcode or found.attr == "_Unpickler", path
            if isinstance(found, ast.Call):
                called = ast.unparse(found.func)
                assert called not in ("torch.load", "torch.hub.load", "eval", "exec"), path
                if called in ("np.load", "numpy.load"):
                    given = {word.arg: ast.unparse(word.value) for word in found.keywords}
                    assert given.get("allow_pickle") == "False", path


NO_SOCKETS = """
import socket, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        raise SystemExit(f"the network was asked for: {event} {arguments}")
sys.addaudithook(refuse)
try:
    socket.getaddrinfo("localhost", 1)
except SystemExit as error:
    assert "getaddrinfo" in str(error)
else:
    raise AssertionError("the hook does nothing")
from agsr.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["infer", "photo.png", "--steps", "1"],
        ["infer", "photo.png", "--steps", "1", "--backend", "torch"],
        ["eval", "--set", "set", "--steps", "1"],
        ["doctor"],
    ],
)
def test_nothing_is_fetched_unasked(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "set").mkdir()
    for name in ("photo.png", "set/photo.png"):
        (tmp_path / name).write_bytes(PHOTO.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", NO_SOCKETS, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_set_that_is_not_here_is_not_fetched_unasked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_SOCKETS, "eval", "--set", "Urban100", "--data", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "the network was asked for" not in done.stderr


def test_shipped_graphs_pass_the_check_that_files_of_others_get() -> None:
    from agsr.engines.onnx_file.inspect import check_self_contained

    shipped = sorted(WEIGHTS_FOLDER.glob("*.onnx"))
    assert shipped
    for path in (*shipped, find_onnx("psnr", 2, "int8")):
        check_self_contained(path.read_bytes(), path.name)


def test_a_repeating_graph_of_others_still_runs(tmp_path: Path, claim: Claim) -> None:
    path = save(tmp_path / "a.onnx", [repeat("picture")])
    assert ForeignBackend(claim(path)).info.weights_hash
