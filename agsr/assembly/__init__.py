"""The generator's ONNX graph, written from its weights by numpy and protobuf alone.

Neither torch nor onnx is needed. Data flow: safetensors files → `agsr.assembly.weights` (mixed, if
two) → `agsr.assembly.fusion` (the layers of the fast graph) → `agsr.assembly.generator_graph`, for
int8 `agsr.assembly.quantize` → `agsr.assembly.assemble`. `agsr.assembly.cached` makes the files of
shipped weights at first use; `agsr.export` compares what is written with torch.
"""
