"""The two networks, their training on a small world, their files and their ONNX graphs: on values."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from timbrel.errors import DataError
from timbrel.pgesam import weights
from timbrel.pgesam.comparison import compare
from timbrel.pgesam.curriculum import Curriculum
from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.export import export_generator, export_map_encoder
from timbrel.pgesam.generator import Generator, GeneratorShape, load_generator
from timbrel.pgesam.generator_training import (
    GeneratorTraining,
    free_running,
    previous_tokens,
    train_generator,
)
from timbrel.pgesam.vae import VaeShape, load_vae
from timbrel.pgesam.vae_training import VaeTraining, batch_drawer, encode, evaluate, train_vae

CPU = torch.device("cpu")
FRAMES = 40
SMALL_GENERATOR = GeneratorShape(
    width=32,
    heads=4,
    condition_layers=1,
    decoder_layers=2,
    feedforward=64,
    frames=FRAMES,
    frames_per_token=3,
    dropout=0.0,
)
SMALL_VAE = {"frames": 30, "channels": (32,) * 5, "hidden": (64,) * 4, "head_width": 64, "dropout": 0.0}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small only lose by sharing a step among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world():
    """Twelve instruments × 25 pitches: a bump at the pitch's place, and a spectral tilt per instrument."""
    rng = np.random.default_rng(5)
    tilts = rng.standard_normal((12, 128)).astype(np.float32)
    embeddings, entries = [], []
    for instrument in range(12):
        split = "train" if instrument < 10 else "validation"
        for pitch in range(25):
            bump = np.exp(-0.5 * ((np.arange(128) - 4 * pitch - 8) / 3.0) ** 2) * 3.0
            fade = np.linspace(1.0, 0.3, FRAMES)[:, None]
            noise = 0.05 * rng.standard_normal((FRAMES, 128))
            embeddings.append(fade * (bump + tilts[instrument]) + noise)
            entries.append((len(entries), instrument, instrument % 11, pitch, split))
    row, instrument, family, pitch, split = (np.array(column) for column in zip(*entries, strict=True))
    names = tuple(f"instrument {i}" for i in range(12))
    notes = MapNotes(
        row=row, instrument=instrument, family=family, pitch=pitch, split=split, instruments=names
    )
    return np.stack(embeddings).astype(np.float16), notes


VAE_TRAINING = VaeTraining(
    steps=200, batch_instruments=8, batch_pitches=8, learning_rate=1e-3, weight_decay=0.01, warmup_steps=5, margin=0.25,
    sample_scale=1.0, input_noise=0.1, time_mask=0.1, evaluate_every=100, seed=3,
)  # fmt: skip
CURRICULUM = Curriculum(
    weights={
        "reconstruction": 0.8,
        "neighbour": 1.0,
        "regularisation": 0.1,
        "kl": 0.0039,
        "pitch": 0.5,
        "family": 0.07,
        "instrument": 0.007,
    }
)
GENERATOR_TRAINING = GeneratorTraining(
    steps=300, batch=16, learning_rate=5e-3, weight_decay=0.01, warmup_steps=5, l1_weight=0.0, condition_noise=0.01,
    input_noise=0.1, input_dropout=0.5, evaluate_every=150, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(world):
    embeddings, notes = world
    reports = []
    vae = train_vae(
        embeddings, notes, shape=VaeShape(instruments=10, **SMALL_VAE), training=VAE_TRAINING, curriculum=CURRICULUM,
        report=lambda step, metrics: reports.append((step, metrics)), device=CPU,
    )  # fmt: skip
    return vae, reports


@pytest.fixture(scope="module")
def written(world, trained):
    embeddings, notes = world
    encoded = encode(trained[0], embeddings, notes.row, CPU)
    reports = []
    generator = train_generator(
        embeddings, notes, encoded, shape=SMALL_GENERATOR, training=GENERATOR_TRAINING,
        report=lambda step, metrics: reports.append((step, metrics)), device=CPU,
    )  # fmt: skip
    return generator, encoded, reports


def test_coarse_frames_follow_the_published_widths():
    assert VaeShape(instruments=1, frames=150).coarse_frames == 5


def test_vae_learns_pitch_and_keeps_instruments_together(world, trained):
    embeddings, notes = world
    vae, reports = trained
    figures = evaluate(vae, embeddings, notes.of("train"), CPU, "train")
    assert figures["train.pitch_accuracy"] >= 0.99
    assert figures["train.v_inst_over_v_pitch"] < 0.1
    assert figures["train.embedding_mse"] < 0.9 * float(np.var(embeddings[:, :30].astype(np.float32)))
    assert [step for step, _ in reports] == [50, 100, 150, 200]
    assert "validation.v_inst_over_v_pitch" in reports[1][1]
    assert "validation.v_inst" not in reports[0][1]


def test_generator_runs_free_close_to_the_truth(world, trained, written):
    embeddings, notes = world
    generator, encoded, reports = written
    variance = float(np.var(embeddings.astype(np.float32)))
    assert reports[-1][1]["train.free_running_mse"] < 0.4 * variance
    figures = compare(generator, trained[0], embeddings, notes, encoded, CPU, seed=0)
    assert figures["train.embedding_mse.transformer"] < 0.5 * figures["train.embedding_mse.nn_map"]
    assert figures["train.embedding_mse.transformer"] < figures["train.embedding_mse.vae"]
    # The pitch that was asked for is what is written: at one place of the map, each pitch has its bump in its place.
    place = np.repeat(encoded.mu[notes.instrument == 0].mean(0, keepdims=True), 25, axis=0)
    scale = free_running(generator, place, np.arange(25), CPU)[:, :10].mean(1)
    bumps = np.stack(
        [(scale - scale.mean(0))[:, 4 * pitch + 6 : 4 * pitch + 11].mean(1) for pitch in range(25)]
    )
    assert np.mean(np.abs(bumps.argmax(0) - np.arange(25)) <= 1) >= 0.9


def test_a_batch_holds_whole_groups_of_instruments(world):
    _, notes = world
    learning = notes.of("train")
    chosen = batch_drawer(learning, VAE_TRAINING)(np.random.default_rng(0))
    instruments, counts = np.unique(learning.instrument[chosen], return_counts=True)
    assert len(instruments) == 8
    assert set(counts) == {8}
    assert len(np.unique(chosen)) == 64


def test_cached_steps_agree_with_all_tokens_at_once():
    torch.manual_seed(1)
    generator = Generator(SMALL_GENERATOR).eval()
    position, pitch = torch.randn(3, 2), torch.tensor([0, 11, 24])
    past = torch.randn(3, SMALL_GENERATOR.tokens, SMALL_GENERATOR.token_width)
    hidden = torch.zeros_like(past)
    with torch.no_grad():
        at_once = generator(past, position, pitch)
        condition, cache = generator.condition_cache(position, pitch), generator.empty_cache(3)
        steps = []
        for index in range(SMALL_GENERATOR.tokens):
            token, cache = generator.step(past[:, index], torch.tensor([index]), cache, condition)
            steps.append(token)
        written = generator.to_frames(generator(hidden, position, pitch))[:, :FRAMES]
    torch.testing.assert_close(torch.stack(steps, dim=1), at_once, atol=1e-5, rtol=1e-4)
    # Sampling is the same with the past hidden.
    torch.testing.assert_close(
        generator.generate(position, pitch, frames=FRAMES), written, atol=1e-5, rtol=1e-4
    )


def test_the_future_is_not_seen_and_the_coordinates_are_not_interchangeable():
    torch.manual_seed(1)
    generator = Generator(SMALL_GENERATOR).eval()
    past = torch.randn(1, SMALL_GENERATOR.tokens, SMALL_GENERATOR.token_width)
    changed = past.clone()
    changed[:, 6:] += 1.0
    position, pitch = torch.tensor([[0.3, -0.5]]), torch.tensor([7])
    with torch.no_grad():
        before, after = generator(past, position, pitch), generator(changed, position, pitch)
        swapped = generator(past, position.flip(1), pitch)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:], atol=1e-3)
    assert not torch.allclose(before, swapped, atol=1e-4)


def test_tokens_hold_frames_in_order():
    generator = Generator(SMALL_GENERATOR)
    frames = torch.arange(2 * FRAMES * 128, dtype=torch.float32).reshape(2, FRAMES, 128)
    tokens = generator.to_tokens(frames)
    assert tokens.shape == (2, 14, 384)
    torch.testing.assert_close(generator.to_frames(tokens)[:, :FRAMES], frames)
    assert generator.to_frames(tokens)[:, FRAMES:].abs().max() == 0


def test_the_past_is_shifted_partly_hidden_and_fades_out():
    target = torch.ones(400, 10, 4)
    settings = replace(GENERATOR_TRAINING, input_noise=0.0, input_dropout=0.25)

    def seen(faded):
        previous = previous_tokens(target, settings, np.random.default_rng(0), faded=faded)
        assert previous[:, 0].abs().max() == 0
        assert set(previous.unique().tolist()) <= {0.0, 1.0}
        return previous[:, 1:].mean().item()

    assert seen(0.0) == pytest.approx(0.75, abs=0.03)
    assert seen(0.5) == pytest.approx(0.375, abs=0.04)
    assert seen(1.0) == seen(4.0) == 0.0
    target = torch.arange(3.0).reshape(1, 3, 1)
    plain = replace(settings, input_dropout=0.0)
    assert previous_tokens(target + 1, plain, np.random.default_rng(0), faded=0.0).flatten().tolist() == [
        0,
        1,
        2,
    ]


def test_weights_survive_the_disk_and_damage_is_noticed(tmp_path, written, trained):
    generator, _, _ = written
    weights.save(generator, tmp_path, "generator", {"seed": 3})
    weights.save(trained[0], tmp_path, "vae", {})
    again, facts = load_generator(tmp_path)
    vae, _ = load_vae(tmp_path)
    assert facts["seed"] == 3
    assert vae.shape == trained[0].shape
    position, pitch = torch.tensor([[0.1, 0.2]]), torch.tensor([5])
    torch.testing.assert_close(
        again.generate(position, pitch, frames=FRAMES), generator.generate(position, pitch, frames=FRAMES)
    )
    damaged = bytearray((tmp_path / "generator.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "generator.safetensors").write_bytes(damaged)
    with pytest.raises(DataError, match="sha256"):
        load_generator(tmp_path)
    with pytest.raises(DataError, match="dvc repro"):
        load_vae(tmp_path / "nowhere")


@pytest.mark.parametrize("frames", [1, 3, 7, FRAMES])
def test_generator_graph_gives_the_numbers_of_torch(tmp_path, written, frames):
    generator, _, _ = written
    path = tmp_path / "generator.onnx"
    export_generator(generator, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 4):
        position = np.random.default_rng(batch).standard_normal((batch, 2)).astype(np.float32) * 0.5
        pitch = np.arange(batch, dtype=np.int64) * 8
        (embedding,) = session.run(
            ["embedding"],
            {"position": position, "pitch": pitch, "frames": np.array([frames], dtype=np.int64)},
        )
        expected = generator.generate(
            torch.from_numpy(position), torch.from_numpy(pitch), frames=frames
        ).numpy()
        assert embedding.shape == (batch, frames, 128)
        np.testing.assert_allclose(embedding, expected, atol=1e-4)


def test_generator_graph_is_one_loop_that_stores_weights_once(tmp_path, written):
    generator, _, _ = written
    path = tmp_path / "generator.onnx"
    export_generator(generator, path)
    graph = onnx.load(path).graph
    loops = [node for node in graph.node if node.op_type == "Loop"]
    assert len(loops) == 1
    assert not loops[0].attribute[0].g.initializer
    parameters = 4 * sum(p.numel() for p in generator.parameters())
    assert path.stat().st_size < parameters + 200_000


def test_map_encoder_graph_gives_the_numbers_of_torch(tmp_path, world, trained):
    embeddings, notes = world
    vae, _ = trained
    path = tmp_path / "map_encoder.onnx"
    export_map_encoder(vae, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batch = embeddings[:7, :30].astype(np.float32)
    position, logits = session.run(["position", "pitch_logits"], {"embedding": batch})
    expected = encode(vae, embeddings, notes.row[:7], CPU)
    np.testing.assert_allclose(position, expected.mu, atol=1e-4)
    np.testing.assert_allclose(logits, expected.pitch_logits, atol=1e-4)


def test_a_resumed_training_ends_like_an_unbroken_one(tmp_path, world):
    embeddings, notes = world
    settings = {name: getattr(VAE_TRAINING, name) for name in VAE_TRAINING.__slots__} | {"steps": 6}
    shape = VaeShape(instruments=10, **SMALL_VAE)
    common = {"shape": shape, "training": VaeTraining(**settings), "curriculum": CURRICULUM, "device": CPU}
    whole = train_vae(embeddings, notes, report=lambda *_: None, **common)

    class Interrupted(Exception):
        pass

    def stop(step, metrics):
        raise Interrupted

    from timbrel import training as loop

    checkpoint = tmp_path / "state.pt"
    # Every step writes a checkpoint; the run is cut off at its only report, the last step.
    original = loop.train.__kwdefaults__["checkpoint_seconds"]
    loop.train.__kwdefaults__["checkpoint_seconds"] = 0.0
    try:
        with pytest.raises(Interrupted):
            train_vae(embeddings, notes, report=stop, checkpoint=checkpoint, **common)
        assert checkpoint.exists()
        resumed = train_vae(embeddings, notes, report=lambda *_: None, checkpoint=checkpoint, **common)
    finally:
        loop.train.__kwdefaults__["checkpoint_seconds"] = original
    assert not checkpoint.exists()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-6, rtol=1e-5)
