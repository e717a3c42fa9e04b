"""Sweep order: the agreement of two orders, counted by hand; the rule by which sweeps are left out; one real sweep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.spatial import distance

from timbrel.cli import main
from timbrel.errors import DataError
from timbrel.evaluation.sweeps import agreements, clips, measure, order_agreement, summary
from timbrel.notes import sweeps
from timbrel.notes.sweep_attributes import AMSYNTH, STEPS, VITAL
from timbrel.notes.sweeps import fault, left_out, load, log_spectrum, plans, render_sweeps, spectral_distance
from timbrel.notes.unseen_engines import PLUGINS


def on_a_line(*places: float) -> np.ndarray:
    return distance.squareform(distance.pdist(np.array(places)[:, None]))


def test_sounds_in_a_row_are_in_order() -> None:
    assert order_agreement(on_a_line(0.0, 1.0, 4.0, 4.5, 9.0)) == pytest.approx(1.0)


def test_two_orders_by_hand() -> None:
    """0, 1, 3, 2: from 0 the other three are at 1, 3, 2, which is 1 - 6 * 2 / 24 = 1/2; from 2 they are at 1, 1, 2:
    ranks 1.5, 1.5, 3 beside 1, 2, 3, which correlate by 1.5 / sqrt(2 * 1.5).
    """
    assert order_agreement(on_a_line(0.0, 1.0, 3.0, 2.0)) == pytest.approx((0.5 + 1.5 / np.sqrt(3.0)) / 2.0)


def test_a_knob_that_comes_back_is_no_order() -> None:
    # From 0: 2, 3, 1 beside 1, 2, 3: -1/2. From 1, going back: 2, 1, 1 (two of a rank).
    assert order_agreement(on_a_line(0.0, 2.0, 3.0, 1.0)) == pytest.approx((-0.5 - 1.5 / np.sqrt(3.0)) / 2.0)


def test_vectors_that_are_all_alike_have_no_order() -> None:
    assert agreements(np.ones((20, 8))) == {"l1": 0.0, "cosine": 0.0}


def test_l1_and_cosine_are_what_they_are_called() -> None:
    """One direction, growing: L1 is in order, cosine sees no difference but rounding's."""
    vectors = np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [7.0, 0.0]])
    assert agreements(vectors) == {"l1": pytest.approx(1.0), "cosine": 0.0}
    # By L1 the second is farther from the first (6) than the third is (5); by l2 it is nearer (4.2).
    bent = np.array([[0.0, 0.0], [3.0, 3.0], [5.0, 0.0], [11.0, 3.0]]) + 1.0
    # From the last, going back: 9, 8, 14.
    assert agreements(bent)["l1"] == pytest.approx((0.5 + 0.5) / 2.0)


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((3, 4)), np.full((4, 4), np.nan)])
def test_what_is_no_sweep_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="3 sounds or more and finite"):
        order_agreement(bad)


def test_each_attribute_counts_alike() -> None:
    found = summary({("a", "x"): [1.0, 0.0, 0.5], ("a", "y"): [1.0], ("b", "x"): [0.9]})
    assert found["spearman"] == pytest.approx((0.5 + 1.0 + 0.9) / 3)
    assert found["engines"]["a"] == {"spearman": 0.75, "attributes": {"x": 0.5, "y": 1.0}}
    assert (found["attributes"], found["sweeps"]) == (3, 5)


def test_distances_of_log_spectra() -> None:
    """Noise half as loud in its second half: -6.02 dB in half of the frames, whatever the level of the whole."""
    rng = np.random.default_rng(1)
    loud = rng.standard_normal(96_000)
    dying = loud * np.where(np.arange(96_000) < 48_000, 1.0, 0.5)
    sounds = [
        (2_000 * loud).astype(np.int16),
        (2_000 * dying).astype(np.int16),
        (1_000 * loud).astype(np.int16),
    ]
    spectra = [log_spectrum(sound) for sound in sounds]
    assert spectral_distance(spectra[0], spectra[1]) == pytest.approx(6.02 * np.sqrt(0.5), abs=0.1)
    assert spectral_distance(spectra[0], spectra[2]) < 0.01
    assert all(each.max() == 0.0 and each.min() >= -60.0 for each in spectra)


def test_what_stands_still_or_hardly_moves_is_left_out() -> None:
    assert fault([0.4] * 19, 5.0) == ""
    assert fault([0.4] * 18 + [0.01], 5.0) == "stands_still"
    assert fault([0.4] * 19, 0.6) == "hardly_moves"


def test_every_attribute_moves_one_control_one_way() -> None:
    assert min(len(AMSYNTH), len(VITAL)) >= 13
    for attribute in AMSYNTH + VITAL:
        steps = np.diff(attribute.values)
        assert len(attribute.values) == STEPS
        assert (steps > 0).all() or (steps < 0).all(), attribute.name
        # Either a control moves or the amount of one modulation.
        assert bool(attribute.control) == all(amount is not None for _, _, amount in attribute.modulations)


def test_plans_are_the_seeds_and_differ_by_one_control() -> None:
    attribute = next(each for each in VITAL if each.name == "filter envelope amount")
    first, again, other = (plans("vital", attribute, count=3, seed=seed) for seed in (1, 1, 2))
    assert [plan.digest for plan in first] == [plan.digest for plan in again]
    assert {plan.digest for plan in first}.isdisjoint(plan.digest for plan in other)
    # More of them begin with the same.
    assert plans("vital", attribute, count=5, seed=1)[:3] == first
    for plan in first:
        low, high = plan.steps[0], plan.steps[-1]
        moved = {name for name in low.controls if low.controls[name] != high.controls[name]}
        number = [each[:2] for each in low.modulations].index(("env_2", "filter_1_cutoff")) + 1
        assert moved == {f"modulation_{number}_amount"}
        assert low.modulations == high.modulations


def test_a_file_that_is_no_sweep_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.npz is not a rendered sweep"):
        load(tmp_path / "a.npz")
    with pytest.raises(DataError, match="no sweep to ask"):
        measure([], lambda clips: {})


def brightness(sound: np.ndarray) -> float:
    """Centroid of the spectrum in Hz."""
    power = np.square(np.abs(np.fft.rfft(sound)))
    return float(np.sum(np.fft.rfftfreq(len(sound), 1 / 24_000) * power) / np.sum(power))


def swing(sound: np.ndarray) -> float:
    """How much of the level goes up and down 2.5 to 7.5 times a second while the key is held."""
    level = np.sqrt(np.square(sound[12_000:69_600].astype(np.float64)).reshape(-1, 240).mean(axis=1))
    rates = np.fft.rfftfreq(len(level), 0.01)
    spectrum = np.abs(np.fft.rfft((level - level.mean()) * np.hanning(len(level))))
    return float(spectrum[(rates >= 2.5) & (rates <= 7.5)].max() / level.sum())


SMALL = ("filter cutoff", "tremolo depth")


@pytest.fixture
def only_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of Vital's attributes are all there is."""
    kept = tuple(next(each for each in VITAL if each.name == name) for name in SMALL)
    monkeypatch.setattr(sweeps, "ATTRIBUTES", {"vital": kept})


def test_a_played_sweep_is_heard_to_go_one_way_and_is_measured(
    only_two: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path / "none"))
    folder, report = tmp_path / "sweeps", tmp_path / "retrieval.json"
    asked = [
        "evaluate",
        "sweeps",
        "--presets",
        "1",
        "--seed",
        "3",
        "--folder",
        str(folder),
        "-o",
        str(report),
    ]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    content = json.loads(report.read_text())
    assert content["sweeps"]["attributes"] == content["sweeps"]["sweeps"] == 2
    by_encoder = content["sweeps"]["by_encoder"]
    assert content["sweeps"]["spearman"] == by_encoder["stage2"]["l1"]["spearman"]
    assert content["baselines"]["mfcc"]["sweeps"]["spearman"] == by_encoder["mfcc"]["l1"]["spearman"]
    assert by_encoder["mel"]["l1"]["engines"]["vital"]["attributes"]["filter cutoff"] > 0.9
    kept = [load(path) for path in folder.iterdir() if not left_out(path)]
    assert sorted(sweep.attribute for sweep in kept) == sorted(SMALL)
    for sweep in kept:
        assert sweep.audio.shape == (STEPS, 96_000)
        assert np.abs(sweep.audio).max(axis=1).tolist() == [29_204] * STEPS  # -1 dBFS
        assert clips(sweep).shape == (STEPS, 72_000)
        heard = brightness if sweep.attribute == "filter cutoff" else swing
        assert (np.diff([heard(sound) for sound in sweep.audio]) > 0).all(), sweep.attribute
    # Nothing is played twice.
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    render_sweeps(folder, presets=1, seed=3, engines=("vital",), workers=1)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.skipif(not PLUGINS["amsynth"].is_file(), reason="no Debian package amsynth here")
def test_amsynths_presets_are_made_ready() -> None:
    attribute = next(each for each in AMSYNTH if each.name == "vibrato rate")
    for plan in plans("amsynth", attribute, count=3, seed=1):
        assert {patch.controls["amp_mod_amount"] for patch in plan.steps} == {-1.0}
        assert 0.3 <= plan.steps[0].controls["freq_mod_amount"] <= 0.5
        # 1 to 9 Hz, the control being the root of it; each step is the same ratio.
        hertz = np.array([patch.controls["lfo_freq"] for patch in plan.steps]) ** 2
        assert hertz[[0, -1]].tolist() == pytest.approx([1.0, 9.0])
        assert np.ptp(hertz[1:] / hertz[:-1]) < 1e-9
