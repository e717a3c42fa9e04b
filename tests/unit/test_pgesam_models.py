"""The two networks, their training on a small world, their files and their ONNX graphs: on values."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from timbrel import distributed
from timbrel.errors import DataError
from timbrel.pgesam import generator_training, linear, weights
from timbrel.pgesam.comparison import compare
from timbrel.pgesam.curriculum import Curriculum
from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.export import export_generator, export_map_encoder
from timbrel.pgesam.generator import Generator, GeneratorShape, load_generator
from timbrel.pgesam.generator_training import (
    GeneratorTraining,
    at_main_velocity,
    frame_error,
    free_running,
    mean_attacks,
    previous_tokens,
    train_generator,
)
from timbrel.pgesam.vae import Vae, VaeShape, Whitening, load_vae
from timbrel.pgesam.vae_training import Encoded, VaeTraining, batch_drawer, encode, evaluate, train_vae

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
        row=row, instrument=instrument, family=family, pitch=pitch, velocity=np.full(len(row), 100), split=split,
        instruments=names,
    )  # fmt: skip
    return np.stack(embeddings).astype(np.float16), notes


VAE_TRAINING = VaeTraining(
    steps=200, batch_instruments=8, batch_pitches=8, learning_rate=1e-3, weight_decay=0.01, warmup_steps=5, margin=0.25,
    sample_scale=1.0, input_noise=0.1, mixed_share=0.5, decoded_notes=16, evaluate_every=100, seed=3,
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
    steps=300, batch=16, learning_rate=5e-3, weight_decay=0.01, warmup_steps=5, frame_weight=0.5, condition_noise=0.01,
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
    assert {f"validation.alarm.{sign}" for sign in ("collapsed", "stretched", "pitch_leaks")} <= set(
        reports[1][1]
    )


def test_steps_through_onednn_are_those_of_torch(world, monkeypatch):
    embeddings, notes = world
    curves = []
    for smallest in (1, 10**12):
        monkeypatch.setattr(linear, "SMALLEST_PRODUCT", smallest)
        losses = []
        train_vae(
            embeddings, notes.of("train"), shape=VaeShape(instruments=10, **SMALL_VAE), curriculum=CURRICULUM,
            training=replace(VAE_TRAINING, steps=5, evaluate_every=1),
            report=lambda step, metrics, losses=losses: losses.append(metrics["loss"]), device=CPU,
        )  # fmt: skip
        curves.append(losses)
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert curves[0][-1] < curves[0][0]


def test_generator_runs_free_close_to_the_truth(world, trained, written):
    embeddings, notes = world
    generator, encoded, reports = written
    variance = float(np.var(embeddings.astype(np.float32)))
    assert reports[-1][1]["train.free_running_mse"] < 0.4 * variance
    errors = (reports[-1][1]["train.free_running_mse"], reports[-1][1]["validation.free_running_mse"])
    assert reports[-1][1]["alarm.overfits"] == float(errors[1] > 3 * errors[0])
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


@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_whitening_takes_out_every_correlation(dimensions):
    torch.manual_seed(dimensions)
    mixed = torch.randn(4000, dimensions) @ torch.randn(dimensions, dimensions) + 3.0
    whitening = Whitening(dimensions, 0.5)
    points = whitening(mixed)
    torch.testing.assert_close(points.mean(0), torch.zeros(dimensions), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(points.T), 0.25 * torch.eye(dimensions), atol=2e-3, rtol=0)
    # The running statistics come to agree.
    for _ in range(200):
        whitening(mixed)
    torch.testing.assert_close(whitening.eval()(mixed), points, atol=2e-2, rtol=0)


@pytest.mark.parametrize("dimensions", [3, 4])
def test_a_map_of_more_dimensions_trains_and_exports(tmp_path, world, dimensions):
    embeddings, notes = world
    shape = VaeShape(instruments=10, map_dimensions=dimensions, **SMALL_VAE)
    vae = train_vae(
        embeddings, notes, shape=shape, training=replace(VAE_TRAINING, steps=20, evaluate_every=20),
        curriculum=CURRICULUM, report=lambda *_: None, device=CPU,
    )  # fmt: skip
    encoded = encode(vae, embeddings, notes.row, CPU)
    assert encoded.mu.shape == (300, dimensions)
    # No axis has collapsed, none is the copy of another.
    assert np.linalg.eigvalsh(np.cov(encoded.mu.T)).min() > 0.2 * shape.map_deviation**2
    generator = train_generator(
        embeddings, notes, encoded, shape=replace(SMALL_GENERATOR, map_dimensions=dimensions),
        training=replace(GENERATOR_TRAINING, steps=8, evaluate_every=8), report=lambda *_: None, device=CPU,
    )  # fmt: skip
    export_map_encoder(vae, tmp_path / "map_encoder.onnx")
    export_generator(generator, tmp_path / "generator.onnx")
    weights.save(vae, tmp_path, "vae", {})
    assert load_vae(tmp_path)[0].shape == shape
    session = onnxruntime.InferenceSession(tmp_path / "map_encoder.onnx", providers=["CPUExecutionProvider"])
    (position,) = session.run(["position"], {"embedding": embeddings[:7, :30].astype(np.float32)})
    np.testing.assert_allclose(position, encoded.mu[:7], atol=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "generator.onnx", providers=["CPUExecutionProvider"])
    pitch, velocity = np.array([3, 20]), np.float32([0.3, 0.9])
    inputs = {"position": position[:2], "pitch": pitch, "velocity": velocity, "frames": np.array([7])}
    (embedding,) = session.run(["embedding"], inputs)
    expected = generator.generate(
        torch.from_numpy(position[:2]), torch.from_numpy(pitch), torch.from_numpy(velocity), frames=7
    )
    np.testing.assert_allclose(embedding, expected.numpy(), atol=1e-4)


def test_velocity_acts_through_its_token_alone():
    torch.manual_seed(1)
    generator = Generator(SMALL_GENERATOR).eval()
    position, pitch = torch.tensor([[0.3, -0.5]]), torch.tensor([7])

    def written(velocity):
        return generator.generate(position, pitch, torch.tensor([velocity / 127]), frames=FRAMES)

    assert (written(100) - written(40)).abs().max() > 1e-3
    torch.testing.assert_close(written(100), generator.generate(position, pitch, frames=FRAMES))
    with torch.no_grad():
        generator.velocity.weight.zero_()
    torch.testing.assert_close(written(100), written(40))
    without = Generator(replace(SMALL_GENERATOR, velocity=False)).eval()
    assert without.shape.condition_tokens == 3
    soft, loud = (without.generate(position, pitch, torch.tensor([v]), frames=9) for v in (0.1, 0.9))
    torch.testing.assert_close(soft, loud)


def test_a_note_of_another_velocity_lies_where_its_instrument_lies():
    notes = MapNotes(
        row=np.arange(5), instrument=np.array([0, 0, 0, 0, 1]), family=np.zeros(5, dtype=np.int64),
        pitch=np.array([4, 10, 5, 7, 5]), velocity=np.array([100, 100, 40, 127, 40]), split=np.repeat("train", 5),
        instruments=("a", "b"),
    )  # fmt: skip
    mu = np.array([[0.0, 0.0], [1.0, -1.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]], dtype=np.float32)
    kept, placed = at_main_velocity(notes, Encoded(mu, mu + 1.0, np.zeros((5, 25), dtype=np.float32)))
    # Pitch 5 is nearest to 4; 7 lies half way; instrument 1 has no note of the main velocity.
    assert kept.row.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(placed.mu, [[0, 0], [1, -1], [0, 0], [0.5, -0.5]])
    np.testing.assert_allclose(placed.sigma, placed.mu + 1.0)
    with pytest.raises(DataError, match="velocity 100"):
        at_main_velocity(notes.take([4]), Encoded(mu[:1], mu[:1], mu[:1]))


def test_the_generator_learns_what_velocity_does(world, trained):
    embeddings, notes = world
    both = np.concatenate([embeddings, 0.3 * embeddings])
    played = {
        name: np.tile(getattr(notes, name), 2) for name in ("instrument", "family", "pitch", "split")
    } | {"row": np.arange(600), "velocity": np.repeat([100, 40], 300)}
    notes, encoded = at_main_velocity(
        MapNotes(instruments=notes.instruments, **played),
        encode(trained[0], both, np.arange(600), CPU),
    )
    generator = train_generator(
        both, notes, encoded, shape=SMALL_GENERATOR, training=replace(GENERATOR_TRAINING, steps=150),
        report=lambda *_: None, device=CPU,
    )  # fmt: skip
    place, pitch = encoded.mu[:25], notes.pitch[:25]
    loud = free_running(generator, place, pitch, CPU)
    soft = free_running(generator, place, pitch, CPU, np.full(25, 40))
    # On its way to 0.3.
    assert np.sqrt((soft**2).mean() / (loud**2).mean()) < 0.75


def test_a_batch_holds_instruments_and_mixtures_of_two(world):
    _, notes = world
    learning = notes.of("train")
    batch = batch_drawer(learning, VAE_TRAINING)(np.random.default_rng(0))
    plain = batch.share == 0
    # 8 instruments of 8 notes, half of them mixtures; plain notes first.
    assert np.unique(batch.group[plain], return_counts=True)[1].tolist() == [8, 8, 8, 8]
    assert plain.tolist() == sorted(plain.tolist(), reverse=True)
    assert np.array_equal(batch.note[plain], batch.partner[plain])
    for group in np.unique(batch.group):
        own = batch.group == group
        assert len(np.unique(batch.note[own])) == own.sum()
        assert len(np.unique(learning.instrument[batch.note[own]])) == 1
        assert len(np.unique(learning.instrument[batch.partner[own]])) == 1
        assert len(np.unique(batch.share[own])) == 1
    assert np.array_equal(learning.pitch[batch.note], learning.pitch[batch.partner])
    assert 0 < batch.share[~plain].min() <= batch.share.max() <= 0.5


def test_the_summary_is_means_and_deviations_over_doubling_spans():
    encoder = Vae(VaeShape(instruments=2, frames=40, dimensions=2)).encoder
    embedding = torch.arange(40.0)[None, :, None] * torch.tensor([1.0, 0.0])
    summary = encoder.summary(embedding)[0].reshape(-1, 2)
    # Spans 0-1, 1-2, 2-4, 4-8, 8-16, 16-32, 32-40; one of them has 16 frames.
    assert summary[:7, 0].tolist() == [0.0, 1.0, 2.5, 5.5, 11.5, 23.5, 35.5]
    assert summary[:7, 1].tolist() == [0.0] * 7
    assert summary[7].tolist() == pytest.approx([np.arange(16.0).std(), 0.01], rel=1e-4)


@pytest.mark.parametrize("sizes", [[1] * 14, [5, 1, 8], [14]])
def test_cached_steps_agree_with_all_tokens_at_once(sizes):
    torch.manual_seed(1)
    generator = Generator(SMALL_GENERATOR).eval()
    torch.nn.init.normal_(generator.attack.weight)
    position, pitch = torch.randn(3, 2), torch.tensor([0, 11, 24])
    past = torch.randn(3, SMALL_GENERATOR.tokens, SMALL_GENERATOR.token_width)
    hidden = torch.zeros_like(past)
    with torch.no_grad():
        at_once = generator(past, position, pitch)
        condition, cache = generator.condition_cache(position, pitch), generator.empty_cache(3)
        steps = []
        for index in torch.arange(SMALL_GENERATOR.tokens).split(sizes):
            tokens, cache = generator.step(past[:, index], index, cache, condition)
            steps.append(tokens)
        written = generator.to_frames(generator(hidden, position, pitch))[:, :FRAMES]
        all_hidden = generator.to_frames(generator(None, position, pitch))[:, :FRAMES]
    stepped = generator.with_attack(torch.cat(steps, dim=1), pitch)
    torch.testing.assert_close(stepped, at_once, atol=1e-5, rtol=1e-4)
    # Sampling is the same with the past hidden.
    torch.testing.assert_close(all_hidden, written, atol=1e-5, rtol=1e-4)
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
    for faded in (1.0, 4.0):
        assert previous_tokens(target, settings, np.random.default_rng(0), faded=faded) is None
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


def test_a_step_writes_the_largest_block_that_leaves_no_rest():
    blocks = {tokens: replace(SMALL_GENERATOR, frames=3 * tokens).block for tokens in (1, 14, 60, 62, 100)}
    assert blocks == {1: 1, 14: 14, 60: 15, 62: 2, 100: 10}


@pytest.mark.parametrize("block", [None, 1, 7])
@pytest.mark.parametrize("frames", [1, 7, FRAMES])
def test_generator_graph_gives_the_numbers_of_torch(tmp_path, written, frames, block):
    generator, _, _ = written
    path = tmp_path / "generator.onnx"
    export_generator(generator, path, block=block)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 4):
        position = np.random.default_rng(batch).standard_normal((batch, 2)).astype(np.float32) * 0.5
        pitch = np.arange(batch, dtype=np.int64) * 8
        velocity = np.linspace(1.0, 0.1, batch, dtype=np.float32)
        inputs = {"position": position, "pitch": pitch, "velocity": velocity, "frames": np.array([frames])}
        (embedding,) = session.run(["embedding"], inputs)
        expected = generator.generate(
            *(torch.from_numpy(value) for value in (position, pitch, velocity)), frames=frames
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


def test_a_resumed_training_ends_like_an_unbroken_one(tmp_path, world, monkeypatch):
    embeddings, notes = world
    settings = {name: getattr(VAE_TRAINING, name) for name in VAE_TRAINING.__slots__} | {"steps": 6}
    shape = VaeShape(instruments=10, **SMALL_VAE)
    common = {"shape": shape, "training": VaeTraining(**settings), "curriculum": CURRICULUM, "device": CPU}
    whole = train_vae(embeddings, notes, report=lambda *_: None, **common)

    class Interrupted(Exception):
        pass

    def stop(step, metrics):
        raise Interrupted

    checkpoint = tmp_path / "state.pt"
    # Every step writes a checkpoint; the run is cut off at its only report, the last step.
    monkeypatch.setattr(distributed, "_CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        train_vae(embeddings, notes, report=stop, checkpoint=checkpoint, **common)
    assert checkpoint.exists()
    resumed = train_vae(embeddings, notes, report=lambda *_: None, checkpoint=checkpoint, **common)
    assert not checkpoint.exists()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_the_error_of_frames_is_the_mean_of_their_root_mean_squares() -> None:
    target = torch.zeros(1, 1, 4)
    predicted = torch.tensor([[[3.0, 4.0, 0.0, 0.0]]])  # two frames of two numbers: √12.5 and 0
    smallest = generator_training.SMALLEST_SQUARE
    wanted = ((12.5 + smallest) ** 0.5 + smallest**0.5) / 2
    assert float(frame_error(predicted, target, 2)) == pytest.approx(wanted, rel=1e-6)


def test_a_generator_starts_from_the_mean_attack_of_each_pitch() -> None:
    notes = MapNotes(
        row=np.array([0, 1, 2]), instrument=np.array([0, 1, 0]), family=np.zeros(3, dtype=np.int64),
        pitch=np.array([4, 4, 24]), velocity=np.full(3, 100), split=np.full(3, "train"), instruments=("a", "b"),
    )  # fmt: skip
    embeddings = np.zeros((3, FRAMES, 128), dtype=np.float16)
    embeddings[0, :, 0], embeddings[1, :, 0], embeddings[2, 5, 7] = 1.0, 3.0, 8.0
    means = mean_attacks(embeddings, notes, SMALL_GENERATOR).unflatten(1, (6, 128))
    assert means[4, :, 0].tolist() == [2.0] * 6
    assert means[24, 5, 7] == 8.0
    assert float(means.abs().sum()) == 6 * 2.0 + 8.0
