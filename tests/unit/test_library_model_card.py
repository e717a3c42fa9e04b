"""The model card says what the reports say, and what was not measured it says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.tiny_bundle import bundle_parts, tiny_bundle_folder

from timbrel.files import sha256_of
from timbrel.library.bundle import Bundle
from timbrel.library.model_card import FILE_NAME, figures_table, further_figures, look_up, model_card

REPORT: dict[str, Any] = {
    "settings": {"walk_steps": 9},
    "train": {"instruments": 238, "notes": 5950, "v_inst_over_v_pitch": 0.00012, "lsd_db": {"vae": 7.25}},
    "heldout": {
        "instruments": 60, "notes": 1480, "v_inst_over_v_pitch": 0.00087, "pitch_accuracy_f0": 0.9871,
        "f0": {"unvoiced_share": 0.02}, "lsd_db": {"vae": 8.04},
    },
    "random_notes": {"notes": 1000, "clipped": 0, "silent": 0, "clicking": 2, "cut_off": 0, "direct_current": 1},
    "codec": {"f0_kept": 1.0},
}  # fmt: skip


def row(table: str, label: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_table_sets_training_beside_held_out() -> None:
    table = figures_table(REPORT)
    assert row(table, "notes") == ["5,950", "1,480"]
    assert row(table, "V_inst / V_pitch") == ["1.2e-04", "8.7e-04"]
    assert row(table, "… by SwiftF0") == ["–", "98.7 %"]
    assert row(table, "… not voiced") == ["–", "2.0 %"]
    assert table.splitlines()[1] == "| --- | ---: | ---: |"


def test_defects_and_speed_are_told_only_where_measured() -> None:
    text = further_figures(REPORT)
    assert "Defects among 1,000 notes at random places and pitches: 2 clicking, 1 direct current." in text
    assert "F0 on 100.0 %" in text
    assert "without a cache" not in text
    fast = further_figures(REPORT | {"speed": {"realtime_factor": 6.14, "cache_speedup": 21.9}})
    assert "6.1 times faster than it sounds, 21.9 times faster than without a cache" in fast


def test_a_dotted_path_is_looked_up() -> None:
    assert look_up(REPORT, "heldout.f0.unvoiced_share") == 0.02
    assert look_up(REPORT, "heldout.f0.nothing") is None
    assert look_up(REPORT, "codec.f0_kept.more") is None


def test_a_bundle_carries_its_card_under_a_hash() -> None:
    parts = bundle_parts(tiny_bundle_folder().with_name("bundle.parts"))
    stages = {"vae": {"seconds": 401.2, "device": "cpu"}}
    card = model_card(
        models=parts["models"],
        data=parts["data"],
        pitches=range(48, 73),
        reports={"pgesam": REPORT, **stages},
    )
    folder = tiny_bundle_folder().with_name("bundle.with_card")
    bundle = Bundle.build(folder, **parts, documents={FILE_NAME: card})
    assert bundle.manifest.files[FILE_NAME].sha256 == sha256_of(folder / FILE_NAME)
    assert bundle.id != Bundle.open(tiny_bundle_folder()).id
    assert (folder / FILE_NAME).read_text() == card
    for name, source in parts["models"].items():
        assert row(card, name)[1:] == [source.entry.source, source.entry.licence]
    assert row(card, "vae") == ["401", "cpu"]
    assert "learned from 5,950 notes of 238 instruments; 1,480 notes of 60 were held out, whole" in card
    assert "MIDI 48-72" in card


def test_weights_that_others_made_keep_their_licence_on_the_card() -> None:
    parts = bundle_parts(tiny_bundle_folder().with_name("bundle.parts"))
    models = dict(parts["models"])
    ours = model_card(models=models, data=parts["data"], pitches=range(48, 73), reports={})
    assert "Models: CC0-1.0. Data" in ours
    decoder = models["codec_decoder"]
    models["codec_decoder"] = replace(decoder, entry=replace(decoder.entry, licence="CC-BY-NC-4.0"))
    card = model_card(models=models, data=parts["data"], pitches=range(48, 73), reports={})
    assert (
        "Models: CC-BY-NC-4.0 (codec_decoder): not for commercial use, "
        "CC0-1.0 (codec_encoder, generator, map_encoder, timbre_encoder). Data"
    ) in card


def test_without_reports_nothing_is_claimed() -> None:
    parts = bundle_parts(tiny_bundle_folder().with_name("bundle.parts"))
    card = model_card(models=parts["models"], data=parts["data"], pitches=range(48, 73), reports={})
    assert set(row(card, "V_inst / V_pitch")) == {"–"}
    assert "learned from" not in card
