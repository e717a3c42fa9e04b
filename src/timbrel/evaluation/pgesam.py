"""pGESAM measured as its paper does, and harder: the map, the pitch, the timbre, on embeddings and on decoded audio.

Nothing is decided here: every figure is named in the report and defined in DEFINITIONS, which the report carries.
Groups: ``train``, ``validation``, ``test``, and ``heldout`` for the latter two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timbrel.errors import DataError
from timbrel.evaluation import velocity
from timbrel.evaluation.f0_accuracy import CENTS, f0_figures
from timbrel.evaluation.families import family_figures, left_out_accuracy
from timbrel.evaluation.listening import HeardNote, HeardWalk, Job, NoteJob, WalkJob, listen
from timbrel.evaluation.report import share
from timbrel.evaluation.smoothness import neighbour_pairs, summary
from timbrel.evaluation.written import Grid, Sample, Trained, grid, pitch_by_head, random_notes, sample, walks
from timbrel.notes.families import FAMILIES
from timbrel.pgesam.dataset import LOWEST_PITCH
from timbrel.pgesam.evaluation import map_statistics, overfits, pitch_accuracy

GROUPS = {
    "train": ("train",),
    "validation": ("validation",),
    "test": ("test",),
    "heldout": ("validation", "test"),
}
MODELS = ("transformer", "vae", "nn_map")
FRAME_RATE = 75
WALK_PITCH = 60 - LOWEST_PITCH
DEFINITIONS = {
    "v_inst": "mean over instruments of the variance of the map point across its pitches, summed over axes",
    "v_pitch": "mean over pitches of the variance of the map point across instruments, summed over axes",
    "vae_pitch_accuracy": "VAE pitch head on real notes, arg max",
    "family_knn": "vote of the k nearest training notes (or instruments, by their mean points); chance: a guess drawn "
    "from the training shares; majority: the most frequent training family as every answer",
    "pitch_accuracy_head": "every instrument of the group at all 25 pitches, generated at the mean point of its notes: "
    "VAE pitch head on the generated embedding, arg max",
    "pitch_accuracy_f0": "the same notes decoded to audio: SwiftF0 within 50 cents of the pitch asked for, octave "
    "errors counted as errors, of all notes that SwiftF0 voices; f0.unvoiced_share is what it does not voice",
    "real_f0": "SwiftF0 on the real notes of the group that the map is made from, against their labels",
    "own_point": "sampled real notes generated at their very own point and pitch",
    "embedding_mse": "mean squared error to the real note's embedding over the frames that the VAE sees, at the note's "
    "own point: mean over the seeds' samples; seed_std: standard deviation over seeds",
    "embedding_mse_whole": "the same over the whole note",
    "lsd_db": "log-spectral distance of decoded audio to the real note over the same frames; codec: the real "
    "note's own embedding decoded, the floor of the others",
    "gap": "held-out over train",
    "codec.f0_kept": "sampled held-out notes encoded and decoded: SwiftF0 within 50 cents of that of the real note, of "
    "those voiced",
    "smoothness": "walks between neighbouring instruments (k nearest places) at one pitch, on decoded audio; steps are "
    "log-spectral distances; medians over walks; crossfade: the end notes' magnitudes mixed linearly, phase rebuilt",
    **velocity.DEFINITIONS,
    "random_notes": "whole notes at points spread evenly over the disc of the training instruments, random pitches",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured.

    ``train_instruments`` of them are judged like the held-out ones, which are judged all. ``sampled_notes`` per
    seed, train and held-out. A walk has ``walk_steps`` steps between notes of ``walk_seconds``.
    """

    train_instruments: int
    sampled_notes: int
    seeds: tuple[int, ...]
    family_neighbours: int
    walks: int
    walk_steps: int
    walk_seconds: float
    random_notes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The report, and the entry of the sampled held-out note that lies in the middle by its LSD, for a picture."""

    report: dict[str, Any]
    typical: int


def measure(
    trained: Trained,
    audio: np.ndarray,
    codec: Path,
    settings: Settings,
    *,
    struck: velocity.Struck,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> Measured:
    """Everything. ``audio`` int16 [N, samples] are the real notes, ``codec`` the folder of the codec, ``struck``
    notes of other velocities.

    Raises DataError without a held-out instrument.
    """
    splits = trained.notes.split
    if not (splits != "train").any():
        raise DataError("no held-out instrument: give data/notes a validation or test split")
    rng = np.random.default_rng(settings.seeds[0])
    numbers = np.arange(len(trained.notes.instruments))
    held = numbers[trained.instrument_splits != "train"]
    some = np.sort(
        rng.permutation(numbers[trained.instrument_splits == "train"])[: settings.train_instruments]
    )
    seen = trained.vae.shape.frames
    frames = trained.generator.shape.frames

    say(f"writing notes of {len(held)} held-out and {len(some)} training instruments")
    grids = {"train": grid(trained, some, frames=frames), "heldout": grid(trained, held, frames=frames)}
    samples = {
        group: sample(
            trained,
            np.flatnonzero(np.isin(splits, GROUPS[group])),
            count=settings.sampled_notes,
            seeds=settings.seeds,
        )
        for group in ("train", "heldout")
    }
    real = np.flatnonzero(splits != "train")
    pairs = neighbour_pairs(trained.places, settings.walks, k=settings.family_neighbours, rng=rng)
    lines = walks(
        trained,
        pairs,
        steps=settings.walk_steps,
        pitch=WALK_PITCH,
        frames=round(settings.walk_seconds * FRAME_RATE),
    )
    random = random_notes(trained, settings.random_notes, seed=settings.seeds[0])

    parts: dict[str, list[Job]] = {
        **{
            f"grid {group}": [NoteJob(embedding=one) for one in made.embeddings]
            for group, made in grids.items()
        },
        "real": [NoteJob(reference=np.asarray(audio[row])) for row in trained.notes.row[real]],
        "walks": [WalkJob(embeddings=line) for line in lines],
        "random": [NoteJob(embedding=one, f0=False) for one in random],
    }
    struck_sample = np.sort(rng.permutation(len(struck))[: settings.sampled_notes])
    parts["velocity"] = velocity.jobs(struck, audio, struck_sample, frames=seen)
    for group, made in samples.items():
        parts |= _sample_jobs(group, made, audio, trained, seen)
    jobs = [job for part in parts.values() for job in part]
    say(f"listening to {len(jobs)} notes and walks")
    everything = iter(listen(jobs, codec, progress=progress))
    heard: dict[str, Any] = {name: [next(everything) for _ in part] for name, part in parts.items()}

    report: dict[str, Any] = {"settings": asdict(settings), "definitions": DEFINITIONS}
    for group, members in GROUPS.items():
        if np.isin(splits, members).any():
            base = "train" if group == "train" else "heldout"
            report[group] = {
                **_map_figures(trained, group, settings),
                **_grid_figures(trained, members, grids[base], heard[f"grid {base}"]),
                **_sample_figures(trained, members, samples[base], heard, base),
            }
    real_midi = np.array([note.midi for note in heard["real"]])
    report["heldout"]["real_f0"] = f0_figures(
        LOWEST_PITCH + trained.notes.pitch[real],
        real_midi,
        np.array(FAMILIES)[trained.notes.family[real]],
    )
    errors = (
        report["train"]["embedding_mse"]["transformer"],
        report["heldout"]["embedding_mse"]["transformer"],
    )
    report["gap"] = {
        name: {model: _over(report["heldout"][name][model], report["train"][name][model]) for model in MODELS}
        for name in ("embedding_mse", "lsd_db")
    }
    report["alarms"] = {**_alarms(trained), "overfits": overfits(*errors)}
    report["codec"] = _codec_figures(
        samples["heldout"],
        heard["codec heldout"],
        real_midi[np.searchsorted(real, samples["heldout"].entries)],
    )
    report["velocity"] = velocity.figures(struck, struck_sample, heard["velocity"])
    report["smoothness"] = _walk_figures(heard["walks"])
    report["random_notes"] = _defect_counts(heard["random"])
    return Measured(report=report, typical=_typical(samples["heldout"], heard["transformer heldout"]))


def _sample_jobs(
    group: str, made: Sample, audio: np.ndarray, trained: Trained, seen: int
) -> dict[str, list[Job]]:
    """The transformer's whole notes with pitch and LSD, its rivals' first frames, and the codec's own answer."""
    whole = made.truth.shape[1]
    references = [np.asarray(audio[row]) for row in trained.notes.row[made.entries]]

    def jobs(embeddings: np.ndarray, f0: bool, lsd_frames: tuple[int, ...]) -> list[Job]:
        return [
            NoteJob(embedding=one, reference=reference, f0=f0, lsd_frames=lsd_frames)
            for one, reference in zip(embeddings, references, strict=True)
        ]

    return {
        f"transformer {group}": jobs(made.transformer, True, (seen, whole)),
        f"vae {group}": jobs(made.vae, False, (seen,)),
        f"nn_map {group}": jobs(made.nn_map, False, (seen,)),
        f"codec {group}": jobs(made.truth, group == "heldout", (seen, whole)),
    }


def _map_figures(trained: Trained, group: str, settings: Settings) -> dict[str, Any]:
    notes, mu, k = trained.notes, trained.encoded.mu, settings.family_neighbours
    of_group = np.isin(notes.split, GROUPS[group])
    statistics = map_statistics(mu[of_group], notes.instrument[of_group], notes.pitch[of_group])
    instruments = np.isin(trained.instrument_splits, GROUPS[group])
    known, known_instruments = notes.split == "train", trained.instrument_splits == "train"
    places, families = trained.places, trained.instrument_families
    knn: dict[str, Any]
    if group == "train":
        knn = {"instruments_left_out": left_out_accuracy(places[instruments], families[instruments], k=k)}
    else:
        knn = {
            "notes": family_figures(
                mu[known], notes.family[known], mu[of_group], notes.family[of_group], k=k
            ),
            "instruments": family_figures(
                places[known_instruments],
                families[known_instruments],
                places[instruments],
                families[instruments],
                k=k,
            ),
        }
    return {
        "instruments": int(instruments.sum()),
        "notes": int(of_group.sum()),
        "v_inst": statistics.v_inst,
        "v_inst_axes": list(statistics.v_inst_axes),
        "v_pitch": statistics.v_pitch,
        "v_pitch_axes": list(statistics.v_pitch_axes),
        "v_inst_over_v_pitch": statistics.ratio,
        "spread": statistics.spread,
        "stretch": statistics.stretch,
        "radius": statistics.radius,
        "outside": statistics.outside,
        "vae_pitch_accuracy": pitch_accuracy(trained.encoded.pitch_logits[of_group], notes.pitch[of_group]),
        "family_knn": knn,
    }


def _grid_figures(
    trained: Trained, members: tuple[str, ...], made: Grid, heard: list[HeardNote]
) -> dict[str, Any]:
    of_group = np.isin(trained.instrument_splits[made.instrument], members)
    right = pitch_by_head(trained, made.embeddings[of_group]) == made.pitch[of_group]
    f0 = f0_figures(
        LOWEST_PITCH + made.pitch[of_group],
        np.array([note.midi for note in heard])[of_group],
        np.array(FAMILIES)[trained.instrument_families[made.instrument[of_group]]],
    )
    return {
        "generated_notes": int(of_group.sum()),
        "pitch_accuracy_head": float(right.mean()),
        "pitch_accuracy_f0": f0["accuracy"],
        "f0": f0,
    }


def _sample_figures(
    trained: Trained, members: tuple[str, ...], made: Sample, heard: dict[str, list[HeardNote]], base: str
) -> dict[str, Any]:
    """Means over the seeds' draws; validation and test are the parts of the held-out draws that fell on them."""
    seen = trained.vae.shape.frames
    of_group = np.isin(trained.notes.split[made.entries], members)
    draws = [chosen[of_group[chosen]] for chosen in made.draws]
    draws = [chosen for chosen in draws if len(chosen)]
    if not draws:
        return {}
    written = {model: getattr(made, model) for model in MODELS}
    squared = {model: _note_mse(values[:, :seen], made.truth[:, :seen]) for model, values in written.items()}
    squared_whole = _note_mse(made.transformer, made.truth)
    lsd = {
        model: np.array([note.lsd_db[0] for note in heard[f"{model} {base}"]]) for model in (*MODELS, "codec")
    }
    lsd_whole = {
        model: np.array([note.lsd_db[1] for note in heard[f"{model} {base}"]])
        for model in ("transformer", "codec")
    }
    chosen = np.unique(np.concatenate(draws))
    own = trained.notes.pitch[made.entries[chosen]]
    right = pitch_by_head(trained, made.transformer[chosen]) == own
    midi = np.array([note.midi for note in heard[f"transformer {base}"]])[chosen]
    family = np.array(FAMILIES)[trained.notes.family[made.entries[chosen]]]
    f0 = f0_figures(LOWEST_PITCH + own, midi, family)
    return {
        "embedding_mse": {model: _mean(values, draws) for model, values in squared.items()},
        "embedding_mse_seed_std": {model: _deviation(values, draws) for model, values in squared.items()},
        "embedding_mse_whole": {"transformer": _mean(squared_whole, draws)},
        "lsd_db": {model: _mean(values, draws) for model, values in lsd.items()},
        "lsd_db_seed_std": {model: _deviation(values, draws) for model, values in lsd.items()},
        "lsd_db_whole": {model: _mean(values, draws) for model, values in lsd_whole.items()},
        "own_point": {
            "notes": len(chosen),
            "pitch_accuracy_head": float(right.mean()),
            "pitch_accuracy_f0": f0["accuracy"],
            "unvoiced_share": f0["unvoiced_share"],
        },
    }


def _codec_figures(made: Sample, heard: list[HeardNote], before: np.ndarray) -> dict[str, Any]:
    """``heard``: the codec's own answers for the sampled held-out notes; ``before`` MIDI [n] of the notes."""
    after = np.array([note.midi for note in heard])
    voiced = int(np.isfinite(before).sum())
    kept = int((100.0 * np.abs(after - before) <= CENTS).sum())
    return {
        "notes": len(heard),
        "voiced": voiced,
        "f0_kept": share(kept, voiced),
        "lsd_db": _mean(np.array([note.lsd_db[1] for note in heard]), list(made.draws)),
    }


def _walk_figures(heard: list[HeardWalk]) -> dict[str, Any]:
    return {
        "walks": len(heard),
        "generated": summary([one.generated for one in heard]),
        "crossfade": summary([one.crossfade for one in heard]),
    }


def _defect_counts(heard: list[HeardNote]) -> dict[str, int]:
    found = [asdict(note.defects) for note in heard if note.defects is not None]
    return {"notes": len(found), **{name: sum(one[name] for one in found) for name in found[0]}}


def _alarms(trained: Trained) -> dict[str, bool]:
    """The failure signs of the map, on training instruments or held-out ones."""
    notes, mu = trained.notes, trained.encoded.mu
    signs: set[str] = set()
    for known in (notes.split == "train", notes.split != "train"):
        signs |= set(map_statistics(mu[known], notes.instrument[known], notes.pitch[known]).alarms())
    return {sign: sign in signs for sign in ("collapsed", "stretched", "pitch_leaks")}


def _typical(made: Sample, heard: list[HeardNote]) -> int:
    order = np.argsort([note.lsd_db[1] for note in heard], kind="stable")
    return int(made.entries[order[len(order) // 2]])


def _note_mse(written: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Per note: [n, frames, 128] twice → float64 [n]."""
    return np.mean((written.astype(np.float64) - truth) ** 2, axis=(1, 2))


def _mean(values: np.ndarray, draws: list[np.ndarray]) -> float:
    return float(np.mean([values[chosen].mean() for chosen in draws]))


def _deviation(values: np.ndarray, draws: list[np.ndarray]) -> float:
    return float(np.std([values[chosen].mean() for chosen in draws]))


def _over(heldout: float, train: float) -> float:
    return heldout / train if train else float("nan")
