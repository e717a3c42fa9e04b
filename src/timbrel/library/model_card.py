"""The model card: what the bundle's models are, what they were made from, what was measured, where they end.

Made from the bundle's own entries and the reports; what was not measured is said to be so. The table of figures is
also the README's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timbrel.library.bundle import ModelSource
    from timbrel.library.manifest import DataSource

FILE_NAME = "MODEL_CARD.md"
TRAININGS = ("codec", "encoder", "vae", "generator")
ABSENT = "–"

Format = Callable[[float], str]


def model_card(
    *,
    models: Mapping[str, ModelSource],
    data: Sequence[DataSource],
    pitches: range,
    reports: Mapping[str, Mapping[str, Any]],
) -> str:
    """Markdown. ``reports`` by name: ``pgesam``, and the trainings' summaries ``codec``, ``encoder``, ``vae``,
    ``generator`` (reports/stages), each with ``seconds`` and ``device``; any may be missing.
    """
    pgesam = reports.get("pgesam", {})
    parts = [
        "# Model card",
        "Five models for one service: search for the patch that sounds like a recording, and synthesis at any point of "
        "a two-dimensional timbre map. Inputs and outputs of each, and the hashes of all files: `manifest.json`.",
        "## Models",
        _models(models),
        "## Data",
        _rows(("data", "source", "licence"), [(one.name, one.source, one.licence) for one in data]),
        _amount(pgesam),
        "## Training",
        _trainings(reports),
        "## Figures",
        figures_table(pgesam),
        further_figures(pgesam),
        "## Limits",
        _limits(pitches, models),
        "## Licences",
        _licences(models, data),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def figures_table(report: Mapping[str, Any]) -> str:
    """The main figures of reports/pgesam.json, training instruments beside held-out ones, as a Markdown table."""
    rows: list[tuple[str, str, Format]] = [
        ("instruments", "instruments", _count),
        ("notes", "notes", _count),
        ("V_inst / V_pitch", "v_inst_over_v_pitch", _small),
        ("pitch head of the VAE on real notes", "vae_pitch_accuracy", _percent),
        ("family of the 5 nearest training notes", "family_knn.notes.accuracy", _percent),
        ("family of the 5 nearest training instruments", "family_knn.instruments.accuracy", _percent),
        ("(the most frequent family as every answer)", "family_knn.instruments.majority", _percent),
        ("generated notes, every pitch: pitch by the VAE's head", "pitch_accuracy_head", _percent),
        ("… by SwiftF0 on decoded audio, of those it voices", "pitch_accuracy_f0", _percent),
        ("… not voiced by SwiftF0", "f0.unvoiced_share", _percent),
        ("embedding error (MSE), Transformer", "embedding_mse.transformer", _three),
        ("… VAE decoder", "embedding_mse.vae", _three),
        ("… mean of the 5 nearest on the map", "embedding_mse.nn_map", _three),
        ("log-spectral distance on audio (dB), Transformer", "lsd_db.transformer", _one),
        ("… VAE decoder", "lsd_db.vae", _one),
        ("… mean of the 5 nearest on the map", "lsd_db.nn_map", _one),
        ("… the codec alone, the floor", "lsd_db.codec", _one),
    ]
    lines = [
        (label, *(_shown(report, f"{group}.{path}", form) for group in ("train", "heldout")))
        for label, path, form in rows
    ]
    return _rows(("", "training", "held-out"), lines, right=2)


def further_figures(report: Mapping[str, Any]) -> str:
    """What has no training column: the codec, walks on the map, random notes, speed."""
    defects = {name: look_up(report, f"random_notes.{name}") for name in
               ("clipped", "silent", "clicking", "cut_off", "direct_current")}  # fmt: skip
    spoilt = (
        ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in defects.items() if value) or "none"
    )
    lines = [
        "Decoded from their own embeddings, held-out notes keep F0 on "
        f"{_shown(report, 'codec.f0_kept', _percent)} of those voiced.",
        "A walk from an instrument to a neighbour in "
        f"{_shown(report, 'settings.walk_steps', _count)} steps has its largest step at "
        f"{_shown(report, 'smoothness.generated.largest_over_mean_step', _two)} times the mean one and a path "
        f"{_shown(report, 'smoothness.generated.path_over_distance', _two)} times the distance of its ends; "
        "a cross-fade of the two end notes, "
        f"{_shown(report, 'smoothness.crossfade.largest_over_mean_step', _two)} and "
        f"{_shown(report, 'smoothness.crossfade.path_over_distance', _two)}.",
        f"Defects among {_shown(report, 'random_notes.notes', _count)} notes at random places and pitches: {spoilt}."
        if look_up(report, "random_notes.notes")
        else "",
        f"One note is generated {_shown(report, 'speed.realtime_factor', _one)} times faster than it sounds, "
        f"{_shown(report, 'speed.cache_speedup', _one)} times faster than without a cache."
        if look_up(report, "speed.realtime_factor")
        else "",
    ]
    return "\n".join(line for line in lines if line)


def look_up(report: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    value: Any = report
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _models(models: Mapping[str, ModelSource]) -> str:
    lines = [
        (name, f"{source.path.stat().st_size / 2**20:.1f} MiB", source.entry.source, source.entry.licence)
        for name, source in models.items()
    ]
    return _rows(("model", "size", "made from", "licence"), lines)


def _amount(report: Mapping[str, Any]) -> str:
    if not report:
        return ""
    train, heldout = (
        f"{_shown(report, f'{group}.notes', _count)} notes of {_shown(report, f'{group}.instruments', _count)}"
        for group in ("train", "heldout")
    )
    return f"The map and the generator learned from {train} instruments; {heldout} were held out, whole."


def _trainings(reports: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        (name, _shown(reports, f"{name}.seconds", _count), str(look_up(reports, f"{name}.device") or ABSENT))
        for name in TRAININGS
    ]
    return _rows(("trained", "seconds", "on"), lines)


def _limits(pitches: range, models: Mapping[str, ModelSource]) -> str:
    codec = "The codec keeps magnitudes and rebuilds the phase: transients are softer than in the original."
    if "codec_encoder" in models and "audio" in models["codec_encoder"].entry.inputs:
        codec = "The codec decodes sound; notes of other lengths than four seconds have some of their phase rebuilt."
    return "\n".join(
        f"- {line}"
        for line in (
            f"Synthesis is trained for MIDI {pitches.start}-{pitches.stop - 1}, notes of four seconds released after "
            "three; other pitches are refused. In other lengths attack, vibrato, decay and release keep their own "
            "speed: a shorter note is let go earlier, a longer one repeats its steady part around its trend, so what "
            "a sound would do only later is not heard.",
            "What still rings at the end of a note is damped to 50 dB below its loudest frame.",
            "Velocity changes the timbre as far as the training notes of other velocities tell. The level follows a "
            "formula, not the instrument, and a note struck harder than 100 is no louder.",
            "The map has two dimensions: instruments that differ in more ways share places, and what is heard at a "
            "place is their common part. Attack noise and vibrato are smoothed away first.",
            codec,
            "Trained on single notes: chords, loops and noises have a place on the map that means nothing.",
            "Held-out instruments come from the same sources as the training ones; other recordings will fare worse.",
        )
    )


def _licences(models: Mapping[str, ModelSource], data: Sequence[DataSource]) -> str:
    names: dict[str, list[str]] = {}
    for name, source in models.items():
        names.setdefault(source.entry.licence, []).append(name)
    ours = ", ".join(
        licence if len(names) == 1 else f"{licence} ({', '.join(sorted(names[licence]))}){_bound(licence)}"
        for licence in sorted(names)
    )
    theirs = "; ".join(f"{one.name}: {one.licence}" for one in data)
    return f"Models: {ours}. Data they were made from: {theirs}."


def _bound(licence: str) -> str:
    return ": not for commercial use" if "-NC-" in licence else ""


def _rows(head: Sequence[str], lines: Sequence[Sequence[str]], *, right: int = 0) -> str:
    """A Markdown table whose last ``right`` columns are set to the right."""
    marks = ["---:" if column >= len(head) - right else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *lines)).replace("|  |", "| |")


def _shown(report: Mapping[str, Any], path: str, form: Format) -> str:
    value = look_up(report, path)
    return ABSENT if value is None else form(value)


def _count(value: float) -> str:
    return f"{round(value):,}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _small(value: float) -> str:
    return f"{value:.1e}"


def _one(value: float) -> str:
    return f"{value:.1f}"


def _two(value: float) -> str:
    return f"{value:.2f}"


def _three(value: float) -> str:
    return f"{value:.3f}"
