"""ONNX graphs of the map encoder and of the generator.

The generator becomes one graph. torch exports two pieces, the condition (run once per note) and the cached step; here
the step becomes the body of an ONNX Loop whose state is the growing keys and values. One turn writes a block of tokens:

    position, pitch, velocity ─► condition ─► keys, values of the condition ─┐ (outer scope)
    frames ─► trip count ─► Loop( index, past ─► step ─► block, past ) ─► blocks ─► [b, frames, 128]

As in Generator.generate, the frames written so far are hidden from the steps after them.
All weights lie in the main graph, where the body reads them, so they are stored once.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from timbrel.files import atomic_write
from timbrel.half_weights import halve
from timbrel.pgesam.generator import ATTACK_TOKENS, Cache, Generator, GeneratorShape
from timbrel.pgesam.vae import MapEncoder, Vae

OPSET = 17
IR_VERSION = 8
PRODUCER = "timbrel"


class _MapEncoderGraph(nn.Module):
    def __init__(self, encoder: MapEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        mu, _, pitch_logits = self.encoder(embedding)
        return mu, pitch_logits


class _ConditionGraph(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, position: Tensor, pitch: Tensor, velocity: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        keys, values = self.generator.condition_cache(position, pitch, velocity)
        return keys, values, self.generator.attack(pitch)


class _StepGraph(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, index: Tensor, keys: Tensor, values: Tensor, c_keys: Tensor, c_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        tokens, cache = self.generator.step(None, index, Cache(keys, values), Cache(c_keys, c_values))
        return tokens, cache.keys, cache.values


def export_map_encoder(vae: Vae, path: Path) -> None:
    """Write map_encoder.onnx: ``embedding`` [b, frames, 128] → ``position`` [b, d] (μ), ``pitch_logits`` [b, 25]."""
    shape = vae.shape
    graph = _MapEncoderGraph(vae.encoder).eval()
    model = _export(
        graph,
        (torch.zeros(2, shape.frames, shape.dimensions),),
        inputs=("embedding",),
        outputs=("position", "pitch_logits"),
        batch_axes={"embedding": 0, "position": 0, "pitch_logits": 0},
    )
    _publish(model, path)


def export_generator(generator: Generator, path: Path, *, block: int | None = None) -> None:
    """Write generator.onnx: ``position`` f32 [b, d], ``pitch`` i64 [b], ``velocity`` f32 [b] in 0..1 (where the shape
    has it), ``frames`` i64 [1] → ``embedding`` f32.

    The output is [b, frames, 128]; ``frames`` is 1 to the generator's 300 (more would run out of learned positions).
    ``block`` is how many tokens one turn of the loop writes (a divisor of the note's tokens; the shape's own choice).
    """
    shape = generator.shape
    block = block or shape.block
    generator = generator.eval()
    given = _conditions(shape)
    condition = _export(
        _ConditionGraph(generator).eval(),
        tuple(given.values()),
        inputs=tuple(given),
        outputs=("condition_keys", "condition_values", "attack"),
        batch_axes=dict.fromkeys(given, 0) | {"condition_keys": 1, "condition_values": 1, "attack": 0},
    )
    head = shape.width // shape.heads
    past = torch.zeros(shape.decoder_layers, 2, shape.heads, 3, head)
    memory = torch.zeros(shape.decoder_layers, 2, shape.heads, shape.condition_tokens, head)
    step = _export(
        _StepGraph(generator).eval(),
        (torch.arange(block), past, past, memory, memory),
        inputs=("index", "keys", "values", "condition_keys", "condition_values"),
        outputs=("block", "new_keys", "new_values"),
        batch_axes={
            "keys": 1, "values": 1, "condition_keys": 1, "condition_values": 1,
            "block": 0, "new_keys": 1, "new_values": 1,
        },
        other_axes={"keys": {3: "past"}, "values": {3: "past"}, "new_keys": {3: "grown"}, "new_values": {3: "grown"}},
    )  # fmt: skip
    _publish(_loop_model(condition, step, shape, block), path)


def _conditions(shape: GeneratorShape) -> dict[str, Tensor]:
    """The condition's inputs by name, with two notes to trace them."""
    given = {
        "position": torch.zeros(2, shape.map_dimensions),
        "pitch": torch.zeros(2, dtype=torch.int64),
    }
    return given | ({"velocity": torch.zeros(2)} if shape.velocity else {})


def _export(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch_axes: dict[str, int],
    other_axes: dict[str, dict[int, str]] | None = None,
) -> onnx.ModelProto:
    axes: dict[str, dict[int, str]] = {name: {axis: "batch"} for name, axis in batch_axes.items()}
    for name, extra in (other_axes or {}).items():
        axes[name].update(extra)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is announced as deprecated; it still gives the smallest graphs for a Loop body.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            arguments,
            buffer,  # type: ignore[arg-type]  # it writes to any binary file
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _loop_model(
    condition: onnx.ModelProto, step: onnx.ModelProto, shape: GeneratorShape, block: int
) -> onnx.ModelProto:
    outer = onnx.compose.add_prefix_graph(condition.graph, "condition/")
    inner = onnx.compose.add_prefix_graph(step.graph, "step/")
    per_turn = block * shape.frames_per_token
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "per_turn": np.array([per_turn], np.int64),
        "per_turn_less_one": np.array([per_turn - 1], np.int64),
        "block": np.array(block, np.int64),
        "in_block": np.arange(block, dtype=np.int64),
        "layers": np.array([shape.decoder_layers], np.int64),
        "heads_past_width": np.array([shape.heads, 0, shape.width // shape.heads], np.int64),
        "frames_shape": np.array([0, -1, shape.dimensions], np.int64),
        "attack_end": np.array([ATTACK_TOKENS * shape.frames_per_token], np.int64),
        "far": np.array([shape.tokens * shape.frames_per_token], np.int64),
        "true": np.array(True),
        "scalar": np.array([], np.int64),
    }
    initializers = [
        *outer.initializer,
        *inner.initializer,
        *(numpy_helper.from_array(value, name) for name, value in constants.items()),
    ]
    node = helper.make_node
    nodes = [
        *(node("Identity", [name], [f"condition/{name}"]) for name in _conditions(shape)),
        *outer.node,
        node("Identity", ["condition/condition_keys"], ["step/condition_keys"]),
        node("Identity", ["condition/condition_values"], ["step/condition_values"]),
        # trip count = ceil(frames / frames of a block)
        node("Add", ["frames", "per_turn_less_one"], ["rounded"]),
        node("Div", ["rounded", "per_turn"], ["trips_1"]),
        node("Reshape", ["trips_1", "scalar"], ["trips"]),
        # the first state: an empty past
        node("Shape", ["pitch"], ["batch"]),
        node("Concat", ["layers", "batch", "heads_past_width"], ["past_shape"], axis=0),
        node("ConstantOfShape", ["past_shape"], ["start_past"]),
        node(
            "Loop",
            ["trips", "true", "start_past", "start_past"],
            ["last_keys", "last_values", "blocks"],
            body=_loop_body(inner, shape, block),
        ),
        # [turns, b, block, token_width] → [b, turns, block, token_width] → [b, all frames, 128] → [b, frames, 128]
        node("Transpose", ["blocks"], ["blocks_of_note"], perm=[1, 0, 2, 3]),
        node("Reshape", ["blocks_of_note", "frames_shape"], ["all_frames"]),
        # the first frames with the mean attack added
        node("Reshape", ["condition/attack", "frames_shape"], ["attack_frames"]),
        node("Slice", ["all_frames", "zero", "attack_end", "one"], ["first_frames"]),
        node("Shape", ["first_frames"], ["first_shape"]),
        node("Slice", ["first_shape", "one", "two"], ["first_count"]),
        node("Slice", ["attack_frames", "zero", "first_count", "one"], ["attack_written"]),
        node("Slice", ["all_frames", "attack_end", "far", "one"], ["later_frames"]),
        node("Add", ["first_frames", "attack_written"], ["first_with_attack"]),
        node("Concat", ["first_with_attack", "later_frames"], ["whole_note"], axis=1),
        node("Slice", ["whole_note", "zero", "frames", "one"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "generator",
        [
            *(
                helper.make_tensor_value_info(
                    name,
                    helper.np_dtype_to_tensor_dtype(example.numpy().dtype),
                    ["batch", *example.shape[1:]],
                )
                for name, example in _conditions(shape).items()
            ),
            helper.make_tensor_value_info("frames", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info(
                "embedding", TensorProto.FLOAT, ["batch", "frames", shape.dimensions]
            )
        ],
        initializer=initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


def _loop_body(step: onnx.GraphProto, shape: GeneratorShape, block: int) -> onnx.GraphProto:
    """(iteration, condition, keys, values) → (condition, keys, values, block of tokens as scan output)."""
    head = shape.width // shape.heads
    past = [shape.decoder_layers, None, shape.heads, None, head]

    def value(name: str, kind: int, dimensions: Sequence[int | None]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, dimensions)

    nodes = [
        helper.make_node("Mul", ["iteration", "block"], ["first"]),
        helper.make_node("Add", ["first", "in_block"], ["step/index"]),
        *step.node,
        helper.make_node("Identity", ["go_on"], ["goes_on"]),
    ]
    return helper.make_graph(
        nodes,
        "next_block",
        [
            value("iteration", TensorProto.INT64, []),
            value("go_on", TensorProto.BOOL, []),
            value("step/keys", TensorProto.FLOAT, past),
            value("step/values", TensorProto.FLOAT, past),
        ],
        [
            value("goes_on", TensorProto.BOOL, []),
            value("step/new_keys", TensorProto.FLOAT, past),
            value("step/new_values", TensorProto.FLOAT, past),
            value("step/block", TensorProto.FLOAT, [None, block, shape.token_width]),
        ],
    )


def _publish(model: onnx.ModelProto, path: Path) -> None:
    model.ir_version = IR_VERSION
    model.producer_name = PRODUCER
    halve(model)
    onnx.checker.check_model(model, full_check=True)
    with atomic_write(path) as handle:
        handle.write(model.SerializeToString())
