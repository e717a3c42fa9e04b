"""Tables and previews: exact round trips, equal bytes for equal contents, and faults named by line."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from timbrel.errors import BundleError, NotFound
from timbrel.library import previews
from timbrel.library.tables import Patch, Render, read_patches, read_renders, write_table

PATCH = Patch(
    patch_id="dx7-0123456789ab", name='Tine, "soft"', bank="own", family="keyboard", engine="dx7",
    offset_semitones=-12.0, x=0.1, y=-0.30000000000000004, payload="AAAA", sha256="0" * 64,
)  # fmt: skip
RENDER = Render(
    row=0, patch_id=PATCH.patch_id, note_id="n", key=60, velocity=100, f0_midi=59.98, f0_confidence=0.9
)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)
floats = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.builds(replace, st.just(PATCH), name=texts, bank=texts, x=floats, y=floats), min_size=1))
def test_patches_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, patches: list[Patch]) -> None:
    patches = [replace(patch, patch_id=f"dx7-{number}") for number, patch in enumerate(patches)]
    path = tmp_path_factory.mktemp("tables") / "patches.csv"
    path.write_bytes(write_table(patches))
    assert read_patches(path) == tuple(patches)


def test_renders_come_back_exactly_and_an_empty_cell_is_no_pitch(tmp_path: Path) -> None:
    renders = [RENDER, replace(RENDER, row=1, f0_midi=math.nan, f0_confidence=math.nan)]
    (tmp_path / "renders.csv").write_bytes(write_table(renders))
    assert (tmp_path / "renders.csv").read_text().splitlines()[2] == "1,dx7-0123456789ab,n,60,100,,"
    first, second = read_renders(tmp_path / "renders.csv", [PATCH])
    assert first == RENDER
    assert math.isnan(second.f0_midi)
    assert math.isnan(second.f0_confidence)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (replace(PATCH, engine="vst"), "line 2: engine is 'vst'"),
        (replace(PATCH, patch_id=""), "line 2: patch_id or payload is empty"),
        (replace(PATCH, payload=""), "line 2: patch_id or payload is empty"),
        (replace(PATCH, x=math.nan), "line 2: x, y or offset_semitones is not finite"),
        (replace(PATCH, y=math.inf), "line 2: x, y or offset_semitones is not finite"),
    ],
)
def test_a_wrong_patch_is_named_by_its_line(tmp_path: Path, patch: Patch, message: str) -> None:
    (tmp_path / "patches.csv").write_bytes(write_table([patch]))
    with pytest.raises(BundleError, match=message):
        read_patches(tmp_path / "patches.csv")


@pytest.mark.parametrize(
    ("render", "message"),
    [
        (replace(RENDER, row=1), "line 2: row is 1 where 0 was due"),
        (replace(RENDER, patch_id="dx7-x"), "line 2: no patch dx7-x"),
        (replace(RENDER, key=128), "line 2: key or velocity"),
        (replace(RENDER, velocity=0), "line 2: key or velocity"),
        (replace(RENDER, f0_midi=math.inf), "line 2: f0_midi is infinite"),
    ],
)
def test_a_wrong_render_is_named_by_its_line(tmp_path: Path, render: Render, message: str) -> None:
    (tmp_path / "renders.csv").write_bytes(write_table([render]))
    with pytest.raises(BundleError, match=message):
        read_renders(tmp_path / "renders.csv", [PATCH])


def test_tables_must_belong_together(tmp_path: Path) -> None:
    (tmp_path / "patches.csv").write_bytes(write_table([PATCH, PATCH]))
    with pytest.raises(BundleError, match="twice"):
        read_patches(tmp_path / "patches.csv")
    (tmp_path / "renders.csv").write_bytes(write_table([RENDER]))
    with pytest.raises(BundleError, match="no render of 1 patches, dx7-other among them"):
        read_renders(tmp_path / "renders.csv", [PATCH, replace(PATCH, patch_id="dx7-other")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not have the columns"),
        (b"a,b\n1,2\n", "does not have the columns"),
        (write_table([PATCH]).split(b"\n")[0] + b"\n", "is empty"),
        (write_table([PATCH])[:-90], "line 2"),
        (b"\xff\xfe", "cannot be read"),
        (write_table([PATCH]).replace(b",0.1,", b",zero,"), "line 2: could not convert"),
    ],
)
def test_a_torn_or_foreign_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "patches.csv").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_patches(tmp_path / "patches.csv")


def test_a_preview_is_a_short_mp3_of_the_sound_that_fades_out() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 24_000).astype(np.float32)
    data = previews.encode(tone, 24_000, seconds=3.0)
    assert len(data) <= 20_000
    decoded, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 24_000
    assert 3.0 <= len(decoded) / rate < 3.2
    middle = decoded[24_000:48_000]
    assert np.abs(np.fft.rfft(middle)).argmax() == 440
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(
        0.5 / np.sqrt(2), rel=0.06
    )  # the encoder takes 0.4 dB off
    assert np.abs(decoded[-600:]).max() < 0.01


def test_previews_are_equal_bytes_for_equal_sounds_and_stored_as_they_are(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(np.arange(24_000) / 7).astype(np.float32)
    entries = [("dx7-b", previews.encode(tone, 24_000, seconds=0.5)), ("dx7-a", b"anything")]
    for name in ("one.zip", "two.zip"):
        previews.write_previews(tmp_path / name, entries)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    archive = previews.Previews(tmp_path / "one.zip")
    assert archive.patch_ids == {"dx7-a", "dx7-b"}
    assert [archive.read(patch_id) for patch_id, _ in entries] == [data for _, data in entries]
    with pytest.raises(NotFound, match="dx7-c"):
        archive.read("dx7-c")
    archive.close()


def test_a_torn_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "previews.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(BundleError, match=r"previews\.zip cannot be read"):
        previews.Previews(tmp_path / "previews.zip")
