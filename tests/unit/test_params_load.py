"""params.yaml: every problem at once, each with its path."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from timbrel.errors import ConfigurationError
from timbrel.notes.families import FAMILIES
from timbrel.params import RULES, Params, load, with_overlays

ROOT = Path(__file__).parents[2]
PROFILES = ("params.yaml", "params/smoke.yaml", "params/nsynth.yaml")


def default() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text())
    return values


def write(folder: Path, values: object) -> Path:
    path = folder / "params.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    first, *lines = caught.value.message.splitlines()
    assert first == f"{path}: {len(lines)} problem(s), nothing was run"
    return [line.strip() for line in lines]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_says_how_it_is_run(profile: str) -> None:
    load(ROOT / profile)
    assert "dvc repro" in (ROOT / profile).read_text().splitlines()[0]


def test_what_is_read_is_what_the_file_says() -> None:
    params = load(ROOT / "params" / "smoke.yaml")
    raw = default()
    assert params.model_dump(mode="json") == raw
    assert params.vae.weights.kl == 0.0039
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 2


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    values = default()
    values["seed"] = "one"
    values["notes"]["velocity"] = 200
    values["vae"]["weights"]["kl"] = -1.0
    values["patches"]["library_pitches"][2] = 128
    values["generator"]["width"] = 33
    values["generator"]["heads"] = 2
    values["library"]["candidats"] = values["library"].pop("candidates")
    del values["codec"]
    assert sorted(problems(write(tmp_path, values))) == sorted(
        [
            'seed: must be integer, not "one"',
            "notes.velocity: must be less than or equal to 127, not 200",
            "vae.weights.kl: must be greater than or equal to 0, not -1.0",
            "patches.library_pitches[2]: must be less than or equal to 127, not 128",
            "library.candidates: missing",
            "library.candidats: no such setting; candidates?",
            "codec: missing",
            "generator.width: must be a multiple of generator.heads",
        ]
    )


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        ("notes", {"pitch_low": 73}, "notes.pitch_low: must not lie above notes.pitch_high"),
        (
            "notes",
            {"validation_share": 0.5, "test_share": 0.5},
            "notes.validation_share: leaves nothing to train on together with notes.test_share",
        ),
        ("notes", {"velocities": [90, 80]}, "notes.velocities: must be [lowest, highest]"),
        (
            "notes",
            {"heldout_families": ["organ", "kazoo"]},
            f"notes.heldout_families: must be some, not all, of {', '.join(FAMILIES)}",
        ),
        (
            "notes",
            {"heldout_families": list(FAMILIES)},
            f"notes.heldout_families: must be some, not all, of {', '.join(FAMILIES)}",
        ),
        ("library", {"preview_pitch": 61}, "library.preview_pitch: must be one of patches.library_pitches"),
        ("generator", {"frames": 301}, "generator.frames: a note has 300 frames"),
        ("patches", {"library_pitches": [60]}, "patches.library_pitches: has 1 values, needs 5"),
        ("encoder", {"channels": [8, 8, 8, 8, 8]}, "encoder.channels: has 5 values, needs 4"),
        (
            "patches",
            {"training_velocities": [90, 80]},
            "patches.training_velocities: must be [lowest, highest]",
        ),
    ],
)
def test_rules_between_settings(tmp_path: Path, section: str, changes: dict[str, Any], expected: str) -> None:
    values = default()
    values[section].update(changes)
    assert expected in problems(write(tmp_path, values))


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("kind", "mp3", "codec.kind: must be 'magnitude' or 'encodec', not \"mp3\""),
        ("kind", None, "codec.kind: must be 'magnitude' or 'encodec', not null"),
        ("weights", 3, "codec.weights: must be string, not 3"),
    ],
)
def test_the_codec_is_one_of_two(tmp_path: Path, setting: str, value: object, expected: str) -> None:
    values = default()
    values["codec"][setting] = value
    assert problems(write(tmp_path, values)) == [expected]
    values["codec"] |= {"kind": "encodec", "weights": "weights/encodec_24khz"}
    codec = load(write(tmp_path, values)).codec
    assert (codec.kind, codec.weights) == ("encodec", "weights/encodec_24khz")


def test_a_rule_is_silent_about_settings_that_are_wrong_by_themselves(tmp_path: Path) -> None:
    values = default()
    values["generator"]["heads"] = 0
    assert problems(write(tmp_path, values)) == ["generator.heads: must be greater than or equal to 1, not 0"]


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    text = yaml.safe_dump(default()).replace("learning_rate: 0.001", "learning_rate: 1e-3")
    assert "1e-3" in text
    assert load(write(tmp_path, text)).vae.learning_rate == 0.001


def test_a_setting_given_twice_is_a_problem(tmp_path: Path) -> None:
    text = yaml.safe_dump(default()) + "seed: 5\n"
    line = len(text.splitlines())
    assert problems(write(tmp_path, text)) == [f"line {line}: seed is given twice"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "must be a mapping of sections"),
        ("", "must be a mapping of sections"),
        ("notes: [1\nseed: 2", "line 2 is not YAML"),
    ],
)
def test_a_file_that_holds_no_settings(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.yaml: No such file"):
        load(tmp_path / "absent.yaml")


def test_rules_name_settings_that_exist() -> None:
    for names, _, _ in RULES:
        for name in names:
            section, _, field = name.partition(".")
            annotation: Any = Params.model_fields[section].annotation
            assert field in annotation.model_fields, name


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(section=st.sampled_from(sorted(default())), field=st.integers(0, 30), value=JUNK)
def test_no_value_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, section: str, field: int, value: object
) -> None:
    values = default()
    if isinstance(values[section], dict):
        names = sorted(values[section])
        values[section][names[field % len(names)]] = value
    else:
        values[section] = value
    with contextlib.suppress(ConfigurationError):
        load(write(tmp_path_factory.mktemp("params"), values))


def test_an_overlay_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    base = ROOT / "params" / "smoke.yaml"
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("seed: 7\nvae: {weights: {kl: 0.5}, steps: 3}\n")
    merged = tmp_path / "params.yaml"
    merged.write_text(with_overlays(base, overlay))
    expected = load(base).model_dump()
    expected["seed"] = 7
    expected["vae"]["steps"] = 3
    expected["vae"]["weights"]["kl"] = 0.5
    assert load(merged).model_dump() == expected
    overlay.write_text("vae: {stepz: 3}\ngenerator: {heads: 3}\n")
    with pytest.raises(ConfigurationError) as caught:
        with_overlays(base, overlay)
    assert "vae.stepz: no such setting" in caught.value.message
    assert "generator.width: must be a multiple of generator.heads" in caught.value.message


def test_the_rehearsal_lies_over_the_nsynth_profile(tmp_path: Path) -> None:
    merged = tmp_path / "params.yaml"
    merged.write_text(with_overlays(ROOT / "params/nsynth.yaml", ROOT / "params/overlays/rehearsal.yaml"))
    params = load(merged)
    assert (params.hardware.processes, params.hardware.precision, params.codec.kind) == (2, "bf16", "encodec")


def test_search_networks_are_ours_or_published_both(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("encoder: {stage1: efficientat-mn04}\n")
    with pytest.raises(ConfigurationError, match=r"encoder.stage1: must be timbre where encoder.stage2 is"):
        with_overlays(ROOT / "params/smoke.yaml", overlay)
