"""The style network: its picture is EfficientAT's, what follows a note does not count; it learns after a teacher."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch

from timbrel.encoders import efficientat_mel, fine_spectrum
from timbrel.encoders.efficientat import EfficientAt, Features
from timbrel.encoders.examples import Pictures
from timbrel.encoders.frontend import CLIP_SAMPLES, REFERENCE_RMS, SAMPLE_RATE
from timbrel.encoders.picture_statistics import SIZES
from timbrel.encoders.style import statistics
from timbrel.encoders.style_network import FINE_WEIGHT, PICTURE_WEIGHTS, StyleNetwork, varimax
from timbrel.encoders.style_picture import (
    FLOOR_DB,
    StylePicture,
    heard_frames,
    to_picture,
    to_powers,
    white_noise,
)
from timbrel.encoders.style_training import Settings, draw, in_noise, standard, train_style, unexplained
from timbrel.encoders.within_class import whitening

TIME = np.arange(CLIP_SAMPLES) / SAMPLE_RATE


def tones() -> np.ndarray:
    harmonics = np.arange(1, 9)[:, None]
    found = [
        (np.sin(2 * np.pi * hertz * harmonics * TIME) / harmonics).sum(axis=0) * np.exp(-TIME * decay)
        for hertz, decay in ((110.0, 0.5), (440.0, 3.0))
    ]
    return (0.1 * np.stack(found)).astype(np.float32)


def test_the_picture_is_efficientat_s_of_the_same_sound() -> None:
    noise = np.random.default_rng(0).standard_normal((2, CLIP_SAMPLES)).astype(np.float32)
    sounds = tones() + 0.01 * noise
    found = StylePicture()(torch.from_numpy(sounds)).numpy()
    resampled = np.stack([soxr.resample(sound, SAMPLE_RATE, 32_000) for sound in sounds])
    plain = torch.from_numpy(efficientat_mel.picture(resampled)[..., :300])
    floor = torch.from_numpy(white_noise(FLOOR_DB))[:, None]
    expected = to_picture(to_powers(plain.double()) + floor).numpy()
    assert found.shape == expected.shape == (2, 1, 128, 300)
    # The first and last frames mirror the clip's ends, which resampling smears.
    # The bands around 12 kHz lie on the edge of either sampling rate's filter.
    inner = np.abs(found - expected)[:, :, :110, 3:-3]
    # Of a range of about 3. Where noise nearly cancels, half a sample makes a difference.
    assert inner.mean() < 0.008
    assert np.quantile(inner, 0.99) < 0.1


def test_frames_up_to_the_last_sound_count() -> None:
    clips = np.zeros((3, CLIP_SAMPLES), dtype=np.float32)
    clips[0] = 0.1
    clips[1, :12_000] = 0.1  # half a second: 50 frames
    clips[1, 24_000:30_000] = 0.1 * 10 ** (-65 / 20)  # more than 60 dB below
    assert heard_frames(torch.from_numpy(clips)).tolist() == [300, 50, 20]


def test_pictures_of_different_lengths_are_as_if_cut() -> None:
    torch.manual_seed(0)
    features = Features(0.4).eval()
    picture = torch.randn(3, 1, 128, 61)
    lengths = torch.tensor([61, 24, 37])
    with torch.no_grad():
        maps, counts = features.blocks(picture, lengths)
        together = statistics(maps, counts)
        for row, length in enumerate(lengths.tolist()):
            alone = statistics(features.blocks(picture[row : row + 1, ..., :length])[0])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_a_style_has_unit_variance_and_is_bounded() -> None:
    torch.manual_seed(0)
    network = StyleNetwork(6)
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(
        rng.standard_normal((300, 6)) @ rng.standard_normal((6, 3_616)) * 0.1 + 2.0
    ).float()
    kept = network.calibrate(raw)
    assert 0.8 < kept < 1.0  # the bound bends six dimensions into a few more
    style = (network.bounded(raw) - network.centre) @ network.axes
    np.testing.assert_allclose(style.mean(dim=0), 0.0, atol=1e-3)
    assert float(style.square().sum(dim=1).mean()) == pytest.approx(1.0, rel=1e-2)
    assert torch.equal(network.axes, network.axes.half().float())
    assert torch.equal(network.whitening, torch.eye(6))
    instruments = np.repeat(np.arange(60), 5)
    network.whiten(raw, instruments)
    expected = whitening(style.double().numpy(), instruments)
    np.testing.assert_allclose(network.whitening, expected, atol=2e-3)
    assert torch.equal(network.whitening, network.whitening.half().float())
    # However far off a channel is: no further than its weight.
    raw[:, 17] += 1e6
    assert float(network.bounded(raw).abs()[:, 17].max()) == pytest.approx(float(network.bounded.weight[17]))
    # Blocks count alike: their squared weights add up to one each; the picture's to what they are worth.
    squares = network.bounded.weight.square()
    assert float(squares[:1_792].sum()) == pytest.approx(17.0, rel=1e-5)
    worth = [float(part.sum()) for part in squares[1_792:].split([*SIZES.values(), fine_spectrum.SIZE])]
    np.testing.assert_allclose(worth, [*(PICTURE_WEIGHTS[name] for name in SIZES), FINE_WEIGHT], rtol=1e-5)


def test_varimax_finds_axes_that_speak_of_few() -> None:
    rng = np.random.default_rng(3)
    clear = np.zeros((30, 3))
    for axis in range(3):
        clear[10 * axis : 10 * axis + 10, axis] = rng.uniform(0.5, 1.0, 10)
    clear /= np.linalg.norm(clear, axis=0)
    mixed = torch.from_numpy(clear @ np.linalg.qr(rng.standard_normal((3, 3)))[0])
    found = varimax(mixed).numpy()
    agreement = np.abs(clear.T @ found)
    np.testing.assert_allclose(np.sort(agreement, axis=1), [[0.0, 0.0, 1.0]] * 3, atol=1e-6)
    # A turn: distances by cosine or length are what they were.
    np.testing.assert_allclose(found @ found.T, mixed.numpy() @ mixed.numpy().T, atol=1e-12)


def test_noise_is_added_as_far_below_as_it_says() -> None:
    clips = tones()[:1] * 0.0
    clips[0, :24_000] = REFERENCE_RMS * np.sqrt(2) * np.sin(2 * np.pi * 500.0 * TIME[:24_000])
    silence = StylePicture()(torch.from_numpy(clips))[..., 150:250].repeat(64, 1, 1, 1)
    noisy = in_noise(silence, np.random.default_rng(0), 1.0)
    # In silence only the floor and the noise are left; at 1 kHz (band 44) white and pink are as loud.
    added = to_powers(noisy.double())[:, 0, 44].mean(dim=1) - white_noise(FLOOR_DB)[44]
    below = 10.0 * np.log10(np.maximum(added.numpy() / white_noise(0.0)[44], 1e-8))
    assert -34.0 < below.max() < -29.0
    assert np.median(below) == pytest.approx(-45.0, abs=5.0)
    # The noise is that of a recording through the same bands.
    white = np.random.default_rng(1).standard_normal((1, CLIP_SAMPLES)).astype(np.float32) * REFERENCE_RMS
    power = to_powers(StylePicture()(torch.from_numpy(white)).double())[0, 0, :, 10:290].mean(dim=1)
    np.testing.assert_allclose(power[:110], white_noise(0.0)[:110], rtol=0.25)
    assert torch.equal(in_noise(silence, np.random.default_rng(0), 0.0), silence)
    torch.testing.assert_close(to_picture(to_powers(silence)), silence, atol=1e-4, rtol=0.0)


def test_sounds_are_drawn_with_as_many_frames_as_they_have() -> None:
    values = np.broadcast_to(np.arange(300, dtype=np.float16), (4, 128, 300))
    pictures = Pictures(values, np.array([300, 300, 45, 20]))
    for seed in range(20):
        drawn, frames = draw(pictures, np.random.default_rng(seed), 6, 60)
        begin = drawn[:, 0, 0, 0].numpy()
        assert drawn.shape == (6, 1, 128, 60)
        np.testing.assert_array_equal(drawn[:, 0, 5, 7].numpy(), begin + 7)
        assert set(frames.tolist()) <= {60, 45, 20, *range(20, 46)}
        assert np.all(begin + frames.numpy() <= 300)


def test_it_learns_what_its_teacher_says() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ramps = rng.uniform(-1.0, 1.0, (24, 128, 1)) + 0.3 * rng.standard_normal((24, 128, 40))
    pictures = Pictures(ramps.astype(np.float16), np.full(24, 40))
    sounds = torch.from_numpy(pictures.values.astype(np.float32))[:, None]
    teacher = EfficientAt(0.4).train()
    with torch.no_grad():
        for _ in range(300):  # until the averages of its normalisation are those of these sounds
            teacher.features(sounds[rng.permutation(24)[:8], ..., :20])
    network = Features(0.4)
    reports: list[tuple[int, dict[str, float]]] = []
    settings = Settings(
        steps=150, batch=8, crop=40, apart_share=1 / 3, normalised_share=2 / 3, learning_rate=3e-3, style_weight=1.0,
        noisy_share=0.25, seed=1,
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    bounded = standard(teacher, pictures, seed=1)
    train_style(
        network,
        teacher,
        bounded,
        pictures,
        settings,
        report=lambda step, metrics: reports.append((step, metrics)),
        validate=lambda network: {"checked": 1.0},
        device=torch.device("cpu"),
    )
    torch.set_num_threads(threads)
    told = [each for _, each in reports if "hint_loss" in each]
    assert told[-1]["hint_loss"] < 0.7 * told[0]["hint_loss"]
    assert ["style_loss" in each for each in told] == [False, True, True]
    assert [step for step, each in reports if "checked" in each] == list(range(15, 150, 15))
    frames = torch.from_numpy(pictures.heard)
    same = Features(0.4)
    same.load_state_dict(teacher.features.state_dict())
    assert unexplained(same.eval(), teacher, bounded, sounds, frames) < 1e-6
    before = unexplained(Features(0.4).eval(), teacher, bounded, sounds, frames)
    assert unexplained(network, teacher, bounded, sounds, frames) < before
    assert told[2]["style_loss"] < told[1]["style_loss"]
