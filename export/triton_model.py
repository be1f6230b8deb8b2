"""Model of Triton's Python backend: runs the ONNX file beside it by ONNX Runtime.

``agsr export --triton --triton-backend python`` copies this file to ``MODEL/1/model.py``. The
server's Python needs numpy and onnxruntime, and nothing of agsr. Requests that the server hands
over together run as one batch if their inputs have one size. Arrays pass by DLPack: Triton's own
conversion returns empty outputs where its backend was built for another numpy than the installed.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

THREADS = "intra_op_thread_count"
"""Parameter of the configuration: threads of an instance on the CPU; as Triton's own ONNX Runtime
backend names it."""


class TritonPythonModel:
    """One instance of the model; Triton calls its methods in this order."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network on the instance's device."""
        config = json.loads(args["model_config"])
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]
        threads = config.get("parameters", {}).get(THREADS, {}).get("string_value", "0")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        options.enable_mem_pattern = False  # sizes vary
        self._session = onnxruntime.InferenceSession(
            Path(__file__).with_name("model.onnx"), options, providers=_providers(args)
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, in their order."""
        inputs = [self._read(request) for request in requests]
        answers: list[Any] = [None] * len(inputs)
        for group in _of_one_size(inputs):
            for number, answer in zip(
                group, self._answers([inputs[n] for n in group]), strict=True
            ):
                answers[number] = answer
        return answers

    def _read(self, request: Any) -> np.ndarray[Any, Any]:
        tensor = pb_utils.get_input_tensor_by_name(request, self._input)
        return np.from_dlpack(tensor)

    def _answers(self, inputs: Sequence[np.ndarray[Any, Any]]) -> list[Any]:
        """Run inputs of one size as one batch; an error answers all of them."""
        try:
            outputs = self._session.run([self._output], {self._input: np.concatenate(inputs)})[0]
        except Exception as error:  # ONNX Runtime raises its own types
            problem = pb_utils.TritonError(str(error))
            return [pb_utils.InferenceResponse([], problem) for _ in inputs]
        stops = np.cumsum([len(values) for values in inputs])[:-1]
        return [
            pb_utils.InferenceResponse([self._tensor(part)]) for part in np.split(outputs, stops)
        ]

    def _tensor(self, values: np.ndarray[Any, Any]) -> Any:
        capsule = values.__dlpack__()
        tensor = pb_utils.Tensor.from_dlpack(self._output, capsule)
        # Triton names a capsule it has taken "used_dlpack", which numpy reports as an error.
        ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), _TAKEN)
        return tensor


_TAKEN = ctypes.c_char_p(b"used_dltensor")
"""Name of a DLPack capsule whose tensor another library owns; alive as long as any capsule."""


def _providers(args: dict[str, str]) -> list[Any]:
    if args["model_instance_kind"] != "GPU":
        return ["CPUExecutionProvider"]
    device = {"device_id": int(args["model_instance_device_id"])}
    return [("CUDAExecutionProvider", device), "CPUExecutionProvider"]


def _of_one_size(inputs: Sequence[np.ndarray[Any, Any]]) -> list[list[int]]:
    """Return the numbers of the inputs, grouped by their size."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, values in enumerate(inputs):
        groups.setdefault(values.shape[1:], []).append(number)
    return list(groups.values())
