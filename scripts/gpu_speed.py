"""The stage ``speed`` of the GPU kit: the network on torch, against what the device can do at most.

The ceilings are measured first: a large product in each precision, and a copy. Floating-point
operations and bytes of a call are counted by its operators, unfused: the larger of the two times
they need at the ceilings is the floor of the eager network, and ``share`` is that floor over the
measured time. Fusing lets a call be faster than its floor.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from agsr.model.base import Network, place
from agsr.model.checkpoint import load_checkpoint
from agsr.pretrained import find_checkpoint
from agsr.training.step.kernels import compile_regions

STEPS = 4
KINDS = {"fp16": torch.float16, "bf16": torch.bfloat16}
WAYS = ("eager", "graph", "compiled-graph")
FULL = {"sizes": [(180, 320), (512, 512), (480, 640)], "batches": [1, 4, 16], "side": 8192}
TINY = {"sizes": [(18, 32)], "batches": [1, 2], "side": 256}
COMPILING = 20.0
"""Seconds that compiling may take: where fewer are left, it isn't begun."""

COMPILED = {(180, 320, 1), (180, 320, 16), (512, 512, 1), (480, 640, 1), (18, 32, 1)}
"""What is compiled, since that takes several seconds for each: height, width, batch."""


@dataclass(frozen=True)
class Case:
    """What is timed."""

    way: str
    precision: str
    batch: int
    height: int
    width: int


class _Bytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums what operators read and write; views read nothing."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.total += sum(t.numel() * t.element_size() for t in tensors)
        return result


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--device", default="cuda")
@click.option("--seconds", default=95.0)
@click.option("--weights", default="psnr", help="A shipped name or a file.")
def main(out: Path, device: str, seconds: float, weights: str) -> None:
    """Measure, cheap cases first, until time is up; the table is printed last."""
    end, place_ = time.monotonic() + seconds, torch.device(device)
    sizes: dict[str, Any] = TINY if os.environ.get("SIZES") == "tiny" else FULL
    ceilings = _ceilings(place_, sizes["side"])
    found: dict[str, Any] = {"device": _name(place_), "ceilings": ceilings, "rows": []}
    checkpoint = load_checkpoint(find_checkpoint(weights))
    for case in _cases(sizes, place_):
        if time.monotonic() > end - (COMPILING if "compiled" in case.way else 2):
            found["left_out"] = "time was up"
            break
        network = place(checkpoint.build(), place_)
        row = {**asdict(case), **_measured(case, network, place_, ceilings)}
        found["rows"].append(row)
        (out / "speed.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(_table(found))
    sys.exit(all("error" in row for row in found["rows"]))


def _cases(sizes: dict[str, Any], device: torch.device) -> Iterator[Case]:
    ways = [way for way in WAYS if device.type == "cuda" or way == "eager"]
    shapes = [(h, w, b) for b, (h, w) in itertools.product(sizes["batches"], sizes["sizes"])]
    for way, precision, (height, width, batch) in itertools.product(ways, KINDS, shapes):
        compiled = way == "compiled-graph"
        if not compiled or (precision == "fp16" and (height, width, batch) in COMPILED):
            yield Case(way, precision, batch, height, width)


def _measured(
    case: Case, network: Network, device: torch.device, ceilings: dict[str, float]
) -> dict[str, Any]:
    """Milliseconds and shares, or why there are none."""
    try:
        lr = torch.rand(case.batch, 3, case.height, case.width, device=device)
        lr = lr.contiguous(memory_format=torch.channels_last)
        with FlopCounterMode(display=False) as flops, _Bytes() as moved:  # type: ignore[no-untyped-call]
            _eager(case, network, lr)
        forward = _forward(case, network, lr)
        seconds = _seconds(_graphed(forward) if "graph" in case.way else forward, device)
    except Exception as error:  # the next case is worth trying
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    work = flops.get_total_flops()
    floor = max(work / ceilings[case.precision], moved.total / ceilings["bytes"])
    return {
        "ms": round(1000 * seconds, 4),
        "images_per_second": round(case.batch / seconds, 2),
        "matmul_share": round(work / seconds / ceilings[case.precision], 4),
        "copy_share": round(moved.total / seconds / ceilings["bytes"], 4),
        "share": round(floor / seconds, 4),
        "gflop": round(work / 1e9, 2),
        "megabytes": round(moved.total / 1e6, 1),
    }


def _eager(case: Case, network: Network, lr: Tensor) -> Tensor:
    with torch.inference_mode(), torch.autocast(lr.device.type, KINDS[case.precision]):
        sr: Tensor = network(lr, STEPS)
        return sr


def _forward(case: Case, network: Network, lr: Tensor) -> Callable[[], object]:
    if "compiled" in case.way:
        compile_regions(network)
    return lambda: _eager(case, network, lr)


def _graphed(work: Callable[[], object]) -> Callable[[], object]:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _ceilings(device: torch.device, side: int) -> dict[str, float]:
    """Operations per second of a product, and bytes read and written per second by a copy."""
    found = {}
    for name, kind in KINDS.items():
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        product = torch.empty_like(a)
        multiply = _with(torch.matmul, a, b, out=product)
        found[name] = 2 * side**3 / _seconds(multiply, device)
    source = torch.empty(64 * side**2 // 16, dtype=torch.float32, device=device)
    copy = torch.empty_like(source)
    found["bytes"] = 2 * source.nbytes / _seconds(lambda: copy.copy_(source), device)
    return found


def _with(function: Callable[..., object], *values: Any, **names: Any) -> Callable[[], object]:
    return lambda: function(*values, **names)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median of three rounds, each long enough that the clock and the launch don't matter."""
    for _ in range(3):
        work()
    once = _round(work, device, 1)
    count = max(1, min(200, int(0.1 / once)))
    return sorted(_round(work, device, count) for _ in range(3))[1]


def _round(work: Callable[[], object], device: torch.device, count: int) -> float:
    _wait(device)
    began = time.perf_counter()
    for _ in range(count):
        work()
    _wait(device)
    return (time.perf_counter() - began) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _table(found: dict[str, Any]) -> str:
    ceilings = found["ceilings"]
    lines = [
        f"{found['device']}: fp16 {ceilings['fp16'] / 1e12:.1f} TFLOP/s, "
        f"bf16 {ceilings['bf16'] / 1e12:.1f} TFLOP/s, copy {ceilings['bytes'] / 1e12:.2f} TB/s",
        "way            kind batch     size       ms  images/s  matmul    copy  of floor",
    ]
    for row in found["rows"]:
        head = (
            f"{row['way']:<14} {row['precision']} {row['batch']:5} {row['width']}x{row['height']}"
        )
        if "error" in row:
            lines.append(f"{head}  {row['error'][:80]!r}")
            continue
        shares = "".join(f"{row[k]:8.1%}" for k in ("matmul_share", "copy_share", "share"))
        lines.append(f"{head:<34} {row['ms']:9.3f} {row['images_per_second']:9.1f}{shares}")
    return "\n".join([*lines, found.get("left_out", "")])


if __name__ == "__main__":
    main()
