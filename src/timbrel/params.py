"""``params.yaml``: read once, checked whole, passed down as plain values.

``load`` reports every problem of the file in one ``ConfigurationError``, a line each with its dotted path, before
any work begins. Every setting must be present: a profile hides nothing behind a default, and DVC sees all of it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from timbrel.errors import ConfigurationError
from timbrel.notes.families import FAMILIES

Midi = Annotated[int, Field(ge=0, le=127)]
Velocity = Annotated[int, Field(ge=1, le=127)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Amount = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Frozen, complete, strict: no unknown setting, no string where a number is meant."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Notes(Section):
    """Training notes: soundfont presets, FM instruments of our own, and NSynth where a folder is named."""

    general_midi: bool
    soundfonts: tuple[str, ...]
    max_presets: Positive
    fm_instruments: Annotated[int, Field(ge=0)]
    pitch_low: Midi
    pitch_high: Midi
    velocity: Velocity
    velocity_notes: Annotated[int, Field(ge=0)]
    velocities: tuple[Velocity, Velocity]
    nsynth: str | None
    instruments_per_family: Positive | None
    heldout_families: tuple[str, ...]
    validation_share: Share
    test_share: Share
    pitched_share: Share
    duplicate_db: Amount


class Patches(Section):
    """The FM voices and the user's banks: what the encoder trains on, and what the library holds."""

    library_voices: Positive
    training_voices: Positive
    library_pitches: Annotated[tuple[Midi, ...], Field(min_length=5)]
    library_velocity: Velocity
    training_renders: Annotated[int, Field(ge=2)]
    training_pitches: tuple[Midi, Midi]
    training_velocities: tuple[Velocity, Velocity]
    validation_share: Share
    pitched_share: Share
    duplicate_db: Amount
    banks: str


class Codec(Section):
    """The codec. ``magnitude``: ``weights`` is a folder that holds a trained one; without, it is trained here.

    ``encodec``: published weights that the user supplies; ``weights`` is where they lie; without, they are looked for
    where ``timbrel weights fetch`` puts them (``timbrel.published``).
    """

    kind: Literal["magnitude", "encodec"]
    weights: str | None
    steps: Positive
    batch_frames: Positive
    hidden: Positive
    learning_rate: Rate
    sources: Annotated[tuple[Literal["notes", "patches"], ...], Field(min_length=1)]
    validation_notes: Positive


class Embeddings(Section):
    """Notes to codec embeddings."""

    batch_notes: Positive


class Encoder(Section):
    """``weights``: a folder that holds a trained timbre encoder; without, it is trained here, by contrast alone, and
    has no style network.
    """

    weights: str | None
    channels: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)]
    embedding_size: Positive
    steps: Positive
    batch_instruments: Annotated[int, Field(ge=2)]
    learning_rate: Rate
    temperature: Annotated[float, Field(gt=0)]
    near_pitch_share: Annotated[float, Field(ge=0, le=1)]


class LossWeights(Section):
    """Weights of the seven losses of pGESAM's VAE."""

    reconstruction: Amount
    neighbour: Amount
    regularisation: Amount
    kl: Amount
    pitch: Amount
    family: Amount
    instrument: Amount


class Vae(Section):
    """pGESAM, first stage: the map and the pitch head."""

    frames: Positive
    channels: Annotated[tuple[Positive, ...], Field(min_length=5, max_length=5)]
    hidden: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)]
    head_width: Positive
    dropout: Share
    map_dimensions: Annotated[int, Field(ge=2, le=4)]
    steps: Positive
    batch_instruments: Annotated[int, Field(ge=2)]
    batch_pitches: Annotated[int, Field(ge=2, le=25)]
    learning_rate: Rate
    weight_decay: Amount
    warmup_steps: Annotated[int, Field(ge=0)]
    margin: Annotated[float, Field(gt=0)]
    weights: LossWeights
    family_schedule: Literal["one_minus_power", "power_of_one_minus"]
    family_exponent: Amount
    neighbour_exponent: Amount
    instrument_exponent: Amount
    sample_scale: Amount
    input_noise: Amount
    mixed_share: Share
    decoded_notes: Positive
    evaluate_every: Positive


class Generator(Section):
    """pGESAM, second stage: the Transformer that speaks codec frames; ``input_noise`` is relative to their spread."""

    width: Positive
    heads: Positive
    condition_layers: Positive
    decoder_layers: Positive
    feedforward: Positive
    dropout: Share
    frames: Positive
    frames_per_token: Positive
    steps: Positive
    batch: Positive
    learning_rate: Rate
    weight_decay: Amount
    warmup_steps: Annotated[int, Field(ge=0)]
    frame_weight: Share
    condition_noise: Amount
    input_noise: Amount
    input_dropout: Share
    evaluate_every: Positive


class Library(Section):
    """The two-stage search and the previews."""

    candidates: Positive
    window_semitones: Annotated[int, Field(ge=0)]
    fold_distance: Annotated[float, Field(ge=0, lt=1)]
    stage1_share: Share
    preview_seconds: Annotated[float, Field(gt=0, le=4)]
    preview_pitch: Midi


class Index(Section):
    """How the partitions of the index are searched ("auto" chooses for each), and the share of the exact answer that
    an approximate plan has to find.
    """

    plan: Literal["auto", "flat", "hnsw", "ivf_flat", "ivf_sq", "ivf_pq", "gpu_cagra", "gpu_ivf_pq"]
    target_recall: Rate


class PgesamEvaluation(Section):
    """How much is measured of pGESAM's two networks."""

    train_instruments: Positive
    sampled_notes: Positive
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    family_neighbours: Positive
    walks: Positive
    walk_steps: Annotated[int, Field(ge=2)]
    walk_seconds: Annotated[float, Field(ge=0.1, le=4)]
    random_notes: Positive


class Evaluation(Section):
    """What is measured on the finished bundle."""

    recall_patches: Positive
    recall_noise_db: Amount
    recall_min_velocity: Velocity
    recall_max_velocity: Velocity
    synthesis_pairs: Positive
    synthesis_seconds: Annotated[float, Field(gt=0, le=4)]
    seed: Annotated[int, Field(ge=0)]


class Params(Section):
    """The whole file."""

    seed: Annotated[int, Field(ge=0)]
    notes: Notes
    patches: Patches
    codec: Codec
    embeddings: Embeddings
    encoder: Encoder
    vae: Vae
    generator: Generator
    pgesam_evaluation: PgesamEvaluation
    library: Library
    index: Index
    evaluation: Evaluation


# A rule between settings: the first path is the one blamed; checked when none of its settings is wrong by itself.
Rule = tuple[tuple[str, ...], Callable[..., bool], str]
RULES: tuple[Rule, ...] = (
    (
        ("notes.pitch_low", "notes.pitch_high"),
        lambda low, high: low <= high,
        "must not lie above notes.pitch_high",
    ),
    (
        ("notes.validation_share", "notes.test_share"),
        lambda validation, test: validation + test < 1,
        "leaves nothing to train on together with notes.test_share",
    ),
    (
        ("notes.soundfonts", "notes.general_midi", "notes.fm_instruments", "notes.nsynth"),
        lambda fonts, midi, fm, nsynth: bool(fonts or midi or fm or nsynth),
        "no source of notes: name a soundfont or an NSynth folder, or set general_midi or fm_instruments",
    ),
    (("notes.velocities",), lambda pair: pair[0] <= pair[1], "must be [lowest, highest]"),
    (
        ("notes.heldout_families",),
        lambda names: set(names) < set(FAMILIES),
        f"must be some, not all, of {', '.join(FAMILIES)}",
    ),
    (("patches.training_pitches",), lambda pair: pair[0] <= pair[1], "must be [lowest, highest]"),
    (("patches.training_velocities",), lambda pair: pair[0] <= pair[1], "must be [lowest, highest]"),
    (("patches.library_pitches",), lambda p: len(set(p)) == len(p), "names a pitch twice"),
    (
        ("library.preview_pitch", "patches.library_pitches"),
        lambda pitch, rendered: pitch in rendered,
        "must be one of patches.library_pitches",
    ),
    (("vae.frames",), lambda frames: frames <= 300, "a note has 300 frames"),
    (("generator.frames",), lambda frames: frames <= 300, "a note has 300 frames"),
    (
        ("generator.width", "generator.heads"),
        lambda width, heads: width % heads == 0,
        "must be a multiple of generator.heads",
    ),
    (
        ("generator.frames", "generator.frames_per_token"),
        lambda frames, each: frames % each == 0,
        "must be a multiple of generator.frames_per_token",
    ),
    (
        ("evaluation.recall_min_velocity", "evaluation.recall_max_velocity"),
        lambda low, high: low <= high,
        "must not lie above evaluation.recall_max_velocity",
    ),
)


def load(path: Path | str) -> Params:
    """Read and check a params file.

    Raises:
        ConfigurationError: the file is missing, is not YAML, or has settings that are wrong; all of them are named.
    """
    path = Path(path)
    values, problems = _read(path)
    params: Params | None = None
    wrong: set[str] = set()
    try:
        params = Params.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        details = error.errors(include_url=False)
        # Pydantic also calls a list too short when it dropped the items that are wrong.
        inside = {detail["loc"][:-1] for detail in details}
        for detail in details:
            if detail["type"] == "too_short" and detail["loc"] in inside:
                continue
            where = _dotted(detail["loc"])
            wrong.add(where)
            problems.append(f"{where}: {_explain(detail)}")
    for names, holds, message in RULES:
        if any(bad == name or bad.startswith((f"{name}.", f"{name}[")) for bad in wrong for name in names):
            continue
        found = [_look_up(values, name) for name in names]
        if _ABSENT not in found and not holds(*found):
            problems.append(f"{names[0]}: {message}")
    if problems or params is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigurationError(f"{path}: {len(problems)} problem(s), nothing was run\n{lines}")
    return params


_ABSENT = object()


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it (1.2 floats, so that ``1e-3`` is a number), noting settings that are given twice."""

    duplicates: list[str]


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key, _ in node.value:
        if key.value in seen:
            loader.duplicates.append(f"line {key.start_mark.line + 1}: {key.value} is given twice")
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; run from the repository's root or name it"
        ) from error
    loader = _Loader(text)
    loader.duplicates = []
    try:
        values = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}: line {line} is not YAML: {error.problem}") from error
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: must be a mapping of sections, beginning with `seed:`")
    return values, loader.duplicates


def _look_up(values: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        if not isinstance(values, dict) or name not in values:
            return _ABSENT
        values = values[name]
    return values


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _explain(detail: ErrorDetails) -> str:
    """Pydantic's message, shortened, with the value that was given."""
    if detail["type"] == "missing":
        return "missing"
    if detail["type"] == "extra_forbidden":
        section: Any = Params
        for part in detail["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        near = difflib.get_close_matches(str(detail["loc"][-1]), section.model_fields, 1)
        return "no such setting" + (f"; {near[0]}?" if near else "")
    if detail["type"] in ("too_short", "too_long"):
        bound = detail["ctx"].get("min_length") or detail["ctx"].get("max_length")
        return f"has {detail['ctx']['actual_length']} values, needs {bound}"
    message = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"must be {message}, not {json.dumps(detail['input'])}"
