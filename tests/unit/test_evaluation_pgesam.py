"""The whole measurement on a generator that answers with real notes: then every figure is known beforehand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_models import tone

from timbrel.codec import spectrum
from timbrel.codec.in_process import TorchModels
from timbrel.codec.network import CodecConfig, MagnitudeCodec
from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.codec.storage import save_codec
from timbrel.evaluation.listening import Listener, NoteJob, WalkJob
from timbrel.evaluation.pgesam import Measured, Settings, measure
from timbrel.evaluation.velocity import struck
from timbrel.evaluation.written import Trained, sample
from timbrel.notes.families import FAMILIES
from timbrel.pgesam.comparison import nn_map
from timbrel.pgesam.dataset import map_notes
from timbrel.pgesam.evaluation import embedding_mse
from timbrel.pgesam.vae import Vae, VaeShape
from timbrel.pgesam.vae_training import encode

CPU = torch.device("cpu")
FRAMES = 150
SAMPLES = FRAMES * 320
# Family, split and place of each instrument; those of the training set sound at every fourth pitch only.
INSTRUMENTS = (
    ("bass", "train", -0.8, 0.1), ("bass", "train", -0.7, 0.3), ("flute", "train", 0.7, -0.2),
    ("flute", "train", 0.8, 0.4), ("bass", "validation", -0.6, 0.2), ("flute", "test", 0.6, 0.1),
)  # fmt: skip
SETTINGS = Settings(
    train_instruments=2, sampled_notes=100, seeds=(1, 2), family_neighbours=2, walks=6, walk_steps=3, walk_seconds=0.4,
    random_notes=5,
)  # fmt: skip


class Echo:
    """Answers with the embedding of the real note nearest in pitch, then on the map."""

    def __init__(self, trained: SimpleNamespace) -> None:
        self.shape = SimpleNamespace(frames=FRAMES)
        self._world = trained

    def generate(
        self,
        position: torch.Tensor,
        pitch: torch.Tensor,
        velocity: torch.Tensor | None = None,
        *,
        frames: int,
    ) -> torch.Tensor:
        world = self._world
        answers = []
        for point, asked in zip(position.numpy(), pitch.numpy(), strict=True):
            far = np.linalg.norm(world.mu - point, axis=1)
            nearest = np.argmin(100 * np.abs(world.notes.pitch - asked) + far)
            answers.append(world.embeddings[world.notes.row[nearest], :frames].astype(np.float32))
        return torch.from_numpy(np.stack(answers))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Tones of six instruments, a codec of principal components, a map of untrained weights."""
    torch.manual_seed(3)
    entries: list[SimpleNamespace] = []
    audio: list[np.ndarray] = []
    for number, (family, split, x, y) in enumerate(INSTRUMENTS):
        for pitch in range(48, 73, 4 if split == "train" else 1):
            sound = tone(pitch, x, y, seconds=2.0, held=1.5)
            audio.append(np.rint(sound * 32767).astype(np.int16))
            note = SimpleNamespace(
                row=len(entries), instrument=f"{number}", family=family, split=split, pitch=pitch,
                velocity=100, f0_midi=float(pitch),
            )  # fmt: skip
            entries.append(note)
    network = MagnitudeCodec(CodecConfig(hidden=16))
    sounds = np.stack(audio).astype(np.float32) / 32768
    network.start_from_pca(np.concatenate([spectrum.log_magnitude(one)[::6] for one in sounds[::2]]), seed=1)
    folder = tmp_path_factory.mktemp("codec")
    save_codec(network.eval(), folder, {})
    codec = MagnitudeCodecRuntime(TorchModels(network))
    embeddings = np.stack([codec.encode(one) for one in sounds]).astype(np.float16)
    notes = map_notes(entries)
    vae = Vae(VaeShape(instruments=4, channels=(8,) * 5, hidden=(16,) * 4, head_width=8)).eval()
    encoded = encode(vae, embeddings, notes.row, CPU)
    # The places of the instruments as a map would have them, a little pitch left in.
    places = np.array([instrument[2:] for instrument in INSTRUMENTS], dtype=np.float32)
    leak = (notes.pitch[:, None] - 12) / 12 * np.array([0.02, -0.01])
    encoded = encoded._replace(mu=(places[notes.instrument] + leak).astype(np.float32))
    found = SimpleNamespace(
        notes=notes, audio=np.stack(audio), embeddings=embeddings, codec=folder, mu=encoded.mu
    )
    generator: Any = Echo(found)
    found.trained = Trained(
        vae=vae, generator=generator, notes=notes, embeddings=embeddings, encoded=encoded, device=CPU
    )
    return found


@pytest.fixture(scope="module")
def measured(world: SimpleNamespace) -> Measured:
    # The same notes as if they had been struck harder: the echo takes no notice.
    harder = replace(world.notes, velocity=np.full(len(world.notes), 127))
    return measure(
        world.trained,
        world.audio,
        world.codec,
        SETTINGS,
        struck=struck(world.trained, harder, np.full(len(harder), "dx7")),
        say=lambda text: None,
        progress=lambda done, total: None,
    )


def test_groups_are_counted(measured: Measured) -> None:
    report = measured.report
    assert {name: report[name]["instruments"] for name in ("train", "validation", "test", "heldout")} == {
        "train": 4, "validation": 1, "test": 1, "heldout": 2,
    }  # fmt: skip
    assert (report["train"]["notes"], report["heldout"]["notes"]) == (28, 50)
    assert (report["train"]["generated_notes"], report["heldout"]["generated_notes"]) == (50, 50)
    assert report["random_notes"]["notes"] == 5
    assert report["smoothness"]["walks"] == 6


def test_pitch_is_judged_on_the_decoded_sound(measured: Measured) -> None:
    report = measured.report
    # A real note stands for every pitch of the held-out instruments, for every fourth of the others.
    assert report["heldout"]["pitch_accuracy_f0"] == 1.0
    assert report["heldout"]["f0"]["unvoiced_share"] == 0.0
    assert report["heldout"]["f0"]["by_family"]["flute"]["notes"] == 25
    assert report["heldout"]["real_f0"]["accuracy"] == 1.0
    assert report["codec"]["f0_kept"] == 1.0
    assert report["heldout"]["own_point"]["pitch_accuracy_f0"] == 1.0


def test_errors_are_those_of_the_notes_themselves(world: SimpleNamespace, measured: Measured) -> None:
    heldout = measured.report["heldout"]
    assert heldout["embedding_mse"]["transformer"] == 0.0
    assert heldout["embedding_mse_whole"]["transformer"] == 0.0
    # What is written is the note's own embedding: no nearer to the real note than the codec comes.
    assert heldout["lsd_db"]["transformer"] == pytest.approx(heldout["lsd_db"]["codec"], abs=1e-6)
    assert heldout["lsd_db"]["transformer"] < 3.0 < heldout["lsd_db"]["vae"]
    # All 50 held-out notes are in every draw.
    chosen = np.flatnonzero(world.notes.split != "train")
    expected = nn_map(world.embeddings, world.notes, world.mu, chosen, frames=FRAMES)
    truth = world.embeddings[world.notes.row[chosen]].astype(np.float32)
    # At three pitches of four no training note sounds: NN-Map is silent there, and is judged like that.
    assert heldout["embedding_mse"]["nn_map"] == pytest.approx(embedding_mse(expected, truth), rel=1e-5)
    assert heldout["embedding_mse_seed_std"]["nn_map"] == pytest.approx(0.0, abs=1e-9)
    assert measured.report["gap"]["embedding_mse"]["vae"] == pytest.approx(
        heldout["embedding_mse"]["vae"] / measured.report["train"]["embedding_mse"]["vae"]
    )


def test_the_map_is_judged_with_its_failure_signs(measured: Measured) -> None:
    report = measured.report
    assert report["heldout"]["v_inst"] == pytest.approx(sum(report["heldout"]["v_inst_axes"]))
    assert report["heldout"]["v_inst_over_v_pitch"] == pytest.approx(
        report["heldout"]["v_inst"] / report["heldout"]["v_pitch"]
    )
    assert report["heldout"]["family_knn"]["instruments"]["chance"] == 0.5
    assert set(report["alarms"]) == {"collapsed", "stretched", "pitch_leaks", "overfits"}
    # Training and held-out errors are both nought.
    assert report["alarms"]["overfits"] is False
    assert set(report["train"]["family_knn"]) == {"instruments_left_out"}


def test_walks_and_random_notes_are_listened_to(measured: Measured) -> None:
    smooth = measured.report["smoothness"]
    for kind in ("generated", "crossfade"):
        assert 1.0 <= smooth[kind]["largest_over_mean_step"] <= SETTINGS.walk_steps
        assert smooth[kind]["path_over_distance"] >= 1.0 - 1e-6
    # The echo jumps from one real note to another.
    assert smooth["generated"]["largest_over_mean_step"] > smooth["crossfade"]["largest_over_mean_step"]
    assert {name: measured.report["random_notes"][name] for name in ("clipped", "silent", "clicking")} == {
        "clipped": 0, "silent": 0, "clicking": 0,
    }  # fmt: skip


def test_notes_of_other_velocities_are_judged(measured: Measured) -> None:
    velocity = measured.report["velocity"]
    assert velocity["notes"] == 50
    assert velocity["embedding_mse"] == {"own": 0.0, "main": 0.0}
    assert velocity["real_change_mse"] == 0.0
    assert velocity["lsd_db"]["own"] == pytest.approx(velocity["lsd_db"]["main"])


def test_every_definition_is_of_a_figure_in_the_report(measured: Measured) -> None:
    def names(value: Any) -> set[str]:
        return set(value) | set().union(*map(names, value.values())) if isinstance(value, dict) else set()

    figures = {name: value for name, value in measured.report.items() if name != "definitions"}
    for name in measured.report["definitions"]:
        assert set(name.split(".")) <= names(figures), name


def test_draws_of_a_seed_hold_no_note_twice(world: SimpleNamespace) -> None:
    made = sample(world.trained, np.flatnonzero(world.notes.split != "train"), count=10, seeds=(1, 2, 3))
    assert [len(set(chosen.tolist())) for chosen in made.draws] == [10, 10, 10]
    assert len(made.entries) == len(set(made.entries.tolist())) == len(made.truth)
    drawn = np.unique(np.concatenate(made.draws))
    np.testing.assert_array_equal(drawn, np.arange(len(made.entries)))


def test_a_listener_hears_one_job(world: SimpleNamespace) -> None:
    listener = Listener(world.codec)
    entry = int(np.flatnonzero((world.notes.split == "test") & (world.notes.pitch == 12))[0])
    row = world.notes.row[entry]
    heard: Any = listener(
        NoteJob(embedding=world.embeddings[row], reference=world.audio[row], lsd_frames=(FRAMES,))
    )
    assert heard.midi == pytest.approx(60, abs=0.2)
    assert len(heard.lsd_db) == 1
    real: Any = listener(NoteJob(reference=world.audio[row]))
    assert real.midi == pytest.approx(60, abs=0.2)
    assert real.defects is None
    assert math.isnan(listener(NoteJob(embedding=world.embeddings[row], f0=False)).midi)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="needs an embedding and a reference"):
        listener(NoteJob(embedding=world.embeddings[row], lsd_frames=(3,)))
    still: Any = listener(WalkJob(embeddings=np.stack([world.embeddings[row, :30]] * 3)))
    assert still.generated.steps_db == (0.0, 0.0)
    assert FAMILIES[world.notes.family[entry]] == "flute"
