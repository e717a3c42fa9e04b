"""What the encoder learns from, worked out once: mel powers, targets of the teacher, whose sound it is, at which pitch.

Every instrument is taken as it is; some of its notes also played faster or slower, and reshaped (``notes.shaping``),
each by amounts of its own: further instruments, and near ones.

    examples.npz     instrument, pitch, target, heard: frames of the picture up to the last sound
    log_power.npy    float16 [n, 80, 120]: log10 of the mel powers
    pictures.npy     float16 [n, 128, 300]: what the style network sees
    examples.json    how the targets were made
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from timbrel.encoders import efficientat, efficientat_mel, teacher
from timbrel.encoders.batches import Sounds, some_of_each
from timbrel.encoders.frontend import SAMPLE_RATE, clip
from timbrel.encoders.mel import PowerMel
from timbrel.encoders.style_picture import FRAMES, StylePicture, heard_frames
from timbrel.errors import DataError
from timbrel.notes.render import map_jobs
from timbrel.notes.shaping import Shape, apply, draw_shape

PICTURES = "pictures.npy"
_CHUNK = 32
_SMALLEST = 1e-9  # -90 dB, far below the floor of the network's input
_SEMITONES = (2.0, 5.0)  # how far a resampled instrument is from its original

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Example:
    """A sound to be heard: note ``row`` of a source, ``semitones`` higher, reshaped. ``instrument``: any name."""

    row: int
    instrument: str
    pitch: float
    semitones: float = 0.0
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    teacher: Path
    sounds: tuple[np.ndarray, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class _Heard:
    log_power: np.ndarray
    pictures: np.ndarray
    heard: np.ndarray
    raw: teacher.RawTarget


def with_variants(
    rows: Sequence[int],
    instruments: Sequence[str],
    pitches: Sequence[float],
    *,
    resampled: int,
    reshaped: int,
    seed: int,
) -> list[Example]:
    """Every note as it is; of each instrument ``resampled`` notes at another speed, ``reshaped`` in another shape."""
    examples = [Example(*each) for each in zip(rows, instruments, pitches, strict=True)]
    labels = np.array(instruments)
    changed: list[Example] = []
    for name, most in (("resampled", resampled), ("reshaped", reshaped)):
        rng = np.random.default_rng((seed, len(name)))
        semitones: dict[str, float] = {}
        shapes: dict[str, Shape] = {}
        for i in some_of_each(labels, most, seed) if most else ():
            each = examples[i]
            if each.instrument not in shapes:
                semitones[each.instrument] = float(rng.uniform(*_SEMITONES) * rng.choice([-1.0, 1.0]))
                shapes[each.instrument] = draw_shape(rng)
            moved = semitones[each.instrument] if name == "resampled" else 0.0
            shape = shapes[each.instrument] if name == "reshaped" else None
            changed.append(Example(each.row, f"{each.instrument}+{name}", each.pitch + moved, moved, shape))
    return examples + changed


def hear(audio: np.ndarray, example: Example) -> np.ndarray:
    """The clip of an example: float32 [72000] from a note [samples] at 24 kHz."""
    if example.semitones:
        audio = soxr.resample(
            audio, SAMPLE_RATE * 2.0 ** (example.semitones / 12.0), SAMPLE_RATE, quality="MQ"
        )
    heard = clip(audio)
    return heard if example.shape is None else clip(apply(heard, example.shape, SAMPLE_RATE))


def write_examples(
    folder: Path,
    sources: Mapping[str, tuple[Callable[[int], np.ndarray], Sequence[Example]]],
    *,
    teacher_file: Path,
    components: int,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Hear all examples of all sources ((audio of a row, examples) by name); returns what examples.json says.

    ``folder`` exists and is empty. Raises DataError when a sound cannot be worked out.
    """
    network = efficientat.read_published(teacher_file)
    with torch.inference_mode():
        channels = tuple(maps.shape[1] for maps in network.blocks(torch.zeros(1, 1, 128, 64)).values())
    every = [each for _, examples in sources.values() for each in examples]
    powers, heard, styles, cepstra = [], [], [], []
    pictures = np.lib.format.open_memmap(
        folder / PICTURES, mode="w+", dtype=np.float16, shape=(len(every), efficientat_mel.BANDS, FRAMES)
    )
    done = 0
    for result in map_jobs(_jobs(sources, teacher_file), _hear_all):
        if result.value is None:
            raise DataError(f"sounds could not be worked out: {result.fault} {result.detail}")
        powers.append(result.value.log_power)
        heard.append(result.value.heard)
        pictures[done : done + len(powers[-1])] = result.value.pictures
        styles.append(result.value.raw.style)
        cepstra.append(result.value.raw.cepstrum)
        done += len(powers[-1])
        progress("examples", done, len(every))
    pictures.flush()
    raw = teacher.RawTarget(np.concatenate(styles), np.concatenate(cepstra))
    targets = teacher.fit_targets(raw, channels=channels, components=components)
    _, instrument = np.unique([each.instrument for each in every], return_inverse=True)
    np.save(folder / "log_power.npy", np.concatenate(powers))
    np.savez(
        folder / "examples.npz",
        instrument=instrument.astype(np.int64),
        pitch=np.array([each.pitch for each in every], dtype=np.float64),
        target=targets.values,
        heard=np.concatenate(heard),
    )
    report = {
        "examples": len(every),
        "instruments": int(instrument.max()) + 1,
        "by_source": {name: len(examples) for name, (_, examples) in sources.items()},
        "components": components,
        "variance_kept": round(targets.kept, 4),
    }
    (folder / "examples.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def read_examples(folder: Path) -> Sounds:
    """Raises DataError when the folder is not what ``write_examples`` makes."""
    try:
        table = np.load(folder / "examples.npz", allow_pickle=False)
        powers = np.load(folder / "log_power.npy", mmap_mode="r", allow_pickle=False)
        return Sounds(powers, table["instrument"], table["pitch"], table["target"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no examples ({error}): run the encoder's pipeline") from error


@dataclass(frozen=True, slots=True)
class Pictures:
    """``values``: float16 [n, 128, 300], mapped; ``heard``: how many frames of each count, int64 [n]."""

    values: np.ndarray
    heard: np.ndarray


def read_pictures(folder: Path) -> Pictures:
    """Raises DataError when the folder is not what ``write_examples`` makes."""
    try:
        heard = np.load(folder / "examples.npz", allow_pickle=False)["heard"].astype(np.int64)
        return Pictures(np.load(folder / PICTURES, mmap_mode="r", allow_pickle=False), heard)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no pictures ({error}): run the encoder's pipeline") from error


def _jobs(
    sources: Mapping[str, tuple[Callable[[int], np.ndarray], Sequence[Example]]], teacher_file: Path
) -> Iterator[_Job]:
    for audio, examples in sources.values():
        for start in range(0, len(examples), _CHUNK):
            some = tuple(examples[start : start + _CHUNK])
            yield _Job(teacher_file, tuple(audio(each.row) for each in some), some)


def _hear_all(job: _Job) -> _Heard:
    network, mel, picture = _loaded(job.teacher)
    clips = np.stack([hear(sound, each) for sound, each in zip(job.sounds, job.examples, strict=True)])
    audio = torch.from_numpy(clips)
    with torch.inference_mode():
        power = torch.log10(mel(audio).clamp_min(_SMALLEST)).half().numpy()
        pictures = picture(audio)[:, 0].half().numpy()
        heard = heard_frames(audio).numpy().astype(np.int16)
    return _Heard(power, pictures, heard, teacher.raw_target(network, clips))


@lru_cache(maxsize=1)
def _loaded(path: Path) -> tuple[efficientat.EfficientAt, PowerMel, StylePicture]:
    """Once in each worker, on one thread: there are as many workers as cores."""
    torch.set_num_threads(1)
    return efficientat.read_published(path), PowerMel(), StylePicture()
