"""Small ONNX models with the real models' inputs and outputs that do, roughly, what the real ones do.

They are worked out, not trained: spectra of additive tones span a 128-dimensional linear code, regressions on
it give the map and the generator, a bank of log-spaced filters is the timbre encoder. So a search finds the
sound that was asked for and a synthesised note has its pitch, within milliseconds and without torch.

    tone(pitch, x, y): partial h has amplitude h^(x - 1.6), even ones 8 (1 + y) dB less
"""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from timbrel.codec import spectrum

SAMPLE_RATE = 24_000
PITCHES = range(48, 73)
D1, D2 = 16, 96
FILTERS = D2 // 2
FLOAT = TensorProto.FLOAT


def tone(pitch: float, x: float, y: float, *, seconds: float = 4.0, held: float = 3.0) -> np.ndarray:
    """A note with a soft start, float32 [samples], peak 0.89."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    f0 = 440 * 2 ** ((pitch - 69) / 12)
    audio = np.zeros_like(time)
    for h in range(1, int(11_000 / f0) + 1):
        level = h ** (x - 1.6) * (1 if h % 2 else 10 ** (-0.4 * (1 + y)))
        audio += level * np.sin(2 * np.pi * h * f0 * time + 0.7 * h * h)
    envelope = np.minimum(time / 0.01, 1) * np.exp(-np.maximum(time - held, 0) / 0.15)
    audio *= envelope
    return (0.89 * audio / np.abs(audio).max()).astype(np.float32)


def write_tiny_models(folder: Path, *, variant: int = 0, in_tune: bool = True) -> dict[str, Path]:
    """The five models as ``folder/<name>.onnx``, by name.

    Another ``variant`` has an encoder with other vectors, and a generator whose notes are brighter. One that is not
    ``in_tune`` makes every note a semitone too low.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {
        "timbre_encoder": _timbre_encoder(variant),
        "codec_encoder": _codec_encoder(),
        "codec_decoder": _codec_decoder(),
        "map_encoder": _map_encoder(),
        "generator": _generator(variant, flat=0 if in_tune else 1),
    }
    paths = {}
    for name, graph in graphs.items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="timbrel")
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        paths[name] = folder / f"{name}.onnx"
        paths[name].write_bytes(model.SerializeToString())
    return paths


@cache
def _code() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """basis [1025, 128] of tones' spectra in dB/20 above the floor; embeddings [225, 128]; labels [225, 3].

    Labels are (pitch 0-24, x, y).
    """
    steps = (-0.9, 0.0, 0.9)
    labels = np.array(list(itertools.product(range(25), steps, steps)))
    tones = np.stack([tone(48 + p, x, y, seconds=0.35, held=0.35) for p, x, y in labels])
    frames = (spectrum.log_magnitude(tones)[:, 12:16].mean(axis=1) + 80) / 20
    _, _, components = np.linalg.svd(frames, full_matrices=False)
    basis = components[:128].T.astype(np.float32)
    return basis, (frames @ basis).astype(np.float32), labels


def _timbre_encoder(variant: int) -> onnx.GraphProto:
    """Cosine and sine filters at 48 log-spaced frequencies; level and spread of their power over time."""
    size, hop = 1024, 1200
    time = (np.arange(size) - size / 2) / SAMPLE_RATE
    centres = np.geomspace(100, 10_000, FILTERS)[:, None]
    # Gaussian windows of 1.3 periods: filters of about a third of an octave, so that a few cents change nothing.
    window = np.exp(-0.5 * (time * centres / 1.3) ** 2) * centres / 10_000
    phase = 2 * np.pi * centres * time
    kernels = np.concatenate([np.cos(phase) * window, np.sin(phase) * window])[:, None].astype(np.float32)
    mix, _ = np.linalg.qr(np.random.default_rng(1 + variant).standard_normal((FILTERS, FILTERS)))
    constants = {
        "as_signal": np.array([0, 1, -1], np.int64),
        "kernels": kernels,
        "pair": np.array([0, 2, FILTERS, -1], np.int64),
        "pair_axis": np.array([1], np.int64),
        "floor": _scalar(1e-8),
        "mix": np.ascontiguousarray(mix[:, :D1], dtype=np.float32),
        "tiny": _scalar(1e-6),
    }
    node = helper.make_node
    nodes = [
        node("Reshape", ["audio", "as_signal"], ["signal"]),
        node("Conv", ["signal", "kernels"], ["parts"], strides=[hop]),
        node("Mul", ["parts", "parts"], ["squares"]),
        node("Reshape", ["squares", "pair"], ["pairs"]),
        node("ReduceSum", ["pairs", "pair_axis"], ["power"], keepdims=0),
        node("ReduceMean", ["power"], ["mean_kept"], axes=[2]),
        node("Sub", ["power", "mean_kept"], ["deviation"]),
        node("Mul", ["deviation", "deviation"], ["squared_deviation"]),
        node("ReduceMean", ["squared_deviation"], ["variance"], axes=[2], keepdims=0),
        node("Sqrt", ["variance"], ["absolute_spread"]),
        node("ReduceMean", ["power"], ["mean_power"], axes=[2], keepdims=0),
        node("Add", ["mean_power", "floor"], ["floored"]),
        node("Div", ["absolute_spread", "floored"], ["spread"]),
        node("Log", ["floored"], ["mean"]),
        node("ReduceMean", ["mean"], ["level"], axes=[1]),
        node("Sub", ["mean", "level"], ["colour"]),
        node("MatMul", ["colour", "mix"], ["mixed"]),
        node("Concat", ["colour", "spread"], ["style"], axis=1),
        *_normalise("mixed", "stage1"),
        *_normalise("style", "stage2"),
    ]
    outputs = [_value("stage1", FLOAT, ["batch", D1]), _value("stage2", FLOAT, ["batch", D2])]
    return _graph("timbre_encoder", nodes, [_value("audio", FLOAT, ["batch", 72_000])], outputs, constants)


def _normalise(source: str, target: str) -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("ReduceL2", [source], [f"{target}_length"], axes=[1]),
        node("Max", [f"{target}_length", "tiny"], [f"{target}_divisor"]),
        node("Div", [source, f"{target}_divisor"], [target]),
    ]


def _codec_encoder() -> onnx.GraphProto:
    constants = {"floor": _scalar(80), "scale": _scalar(20), "basis": _code()[0]}
    node = helper.make_node
    nodes = [
        node("Add", ["log_magnitude", "floor"], ["above"]),
        node("Div", ["above", "scale"], ["scaled"]),
        node("MatMul", ["scaled", "basis"], ["embedding"]),
    ]
    return _graph(
        "codec_encoder",
        nodes,
        [_value("log_magnitude", FLOAT, ["batch", "frames", 1025])],
        [_value("embedding", FLOAT, ["batch", "frames", 128])],
        constants,
    )


def _codec_decoder() -> onnx.GraphProto:
    constants = {
        "floor": _scalar(80),
        "scale": _scalar(20),
        "basis": np.ascontiguousarray(_code()[0].T),
        "zero": _scalar(0),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["embedding", "basis"], ["scaled"]),
        node("Mul", ["scaled", "scale"], ["raised"]),
        node("Max", ["raised", "zero"], ["above"]),
        node("Sub", ["above", "floor"], ["log_magnitude"]),
    ]
    return _graph(
        "codec_decoder",
        nodes,
        [_value("embedding", FLOAT, ["batch", "frames", 128])],
        [_value("log_magnitude", FLOAT, ["batch", "frames", 1025])],
        constants,
    )


def _map_encoder() -> onnx.GraphProto:
    """Least squares from the mean frame to (x, y), kept in the unit disc; the nearest mean tone's pitch for
    the logits.
    """
    _, embeddings, labels = _code()
    padded = np.concatenate([embeddings, np.ones((len(embeddings), 1), np.float32)], axis=1)
    to_map = np.linalg.lstsq(padded, labels[:, 1:], rcond=None)[0].astype(np.float32)
    centres = np.stack([embeddings[labels[:, 0] == pitch].mean(axis=0) for pitch in range(25)])
    constants = {
        "to_map": to_map[:128],
        "map_bias": to_map[128],
        "rim": _scalar(1),
        "centres": np.ascontiguousarray(centres.T),
        "centre_bias": (-0.5 * (centres**2).sum(axis=1)).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["embedding"], ["mean"], axes=[1], keepdims=0),
        node("MatMul", ["mean", "to_map"], ["placed"]),
        node("Add", ["placed", "map_bias"], ["anywhere"]),
        node("ReduceL2", ["anywhere"], ["radius"], axes=[1]),
        node("Max", ["radius", "rim"], ["shrink"]),
        node("Div", ["anywhere", "shrink"], ["position"]),
        node("MatMul", ["mean", "centres"], ["products"]),
        node("Add", ["products", "centre_bias"], ["pitch_logits"]),
    ]
    outputs = [_value("position", FLOAT, ["batch", 2]), _value("pitch_logits", FLOAT, ["batch", 25])]
    inputs = [_value("embedding", FLOAT, ["batch", 150, 128])]
    return _graph("map_encoder", nodes, inputs, outputs, constants)


def _generator(variant: int, *, flat: int = 0) -> onnx.GraphProto:
    """Per pitch, the embedding as a linear function of (1, x, y), a harder note being brighter: x + velocity - 100/127.

    The same frame throughout.
    """
    _, embeddings, labels = _code()
    places = len(labels) // 25
    design = np.concatenate([np.ones((places, 1)), labels[:places, 1:]], axis=1)
    planes = np.stack(
        [np.linalg.lstsq(design, embeddings[labels[:, 0] == pitch], rcond=None)[0] for pitch in range(25)]
    )
    constants = {
        "planes": np.roll(planes, flat, axis=0).astype(np.float32),
        "one": np.array([1], np.int64),
        "weights_axis": np.array([2], np.int64),
        "sum_axis": np.array([1], np.int64),
        "unit": np.ones((1, 1), np.float32),
        "width": np.array([128], np.int64),
        "usual_velocity": _scalar(100 / 127 - 0.2 * variant),
        "along_x": np.array([[1, 0]], np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Shape", ["pitch"], ["batch"]),
        node("Concat", ["batch", "one"], ["ones_shape"], axis=0),
        node("Expand", ["unit", "ones_shape"], ["ones"]),
        node("Unsqueeze", ["velocity", "sum_axis"], ["velocity_column"]),
        node("Sub", ["velocity_column", "usual_velocity"], ["harder"]),
        node("Mul", ["harder", "along_x"], ["shift"]),
        node("Add", ["position", "shift"], ["place"]),
        node("Concat", ["ones", "place"], ["weights"], axis=1),
        node("Unsqueeze", ["weights", "weights_axis"], ["weight_columns"]),
        node("Gather", ["planes", "pitch"], ["chosen"]),
        node("Mul", ["chosen", "weight_columns"], ["terms"]),
        node("ReduceSum", ["terms", "sum_axis"], ["frame"], keepdims=1),
        node("Concat", ["batch", "frames", "width"], ["shape"], axis=0),
        node("Expand", ["frame", "shape"], ["embedding"]),
    ]
    inputs = [
        _value("position", FLOAT, ["batch", 2]),
        _value("pitch", TensorProto.INT64, ["batch"]),
        _value("velocity", FLOAT, ["batch"]),
        _value("frames", TensorProto.INT64, [1]),
    ]
    outputs = [_value("embedding", FLOAT, ["batch", "frames_made", 128])]
    return _graph("generator", nodes, inputs, outputs, constants)


def _scalar(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


def _value(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _graph(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> onnx.GraphProto:
    initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    return helper.make_graph(nodes, name, inputs, outputs, initializer=initializers)
