"""A place of the map as an instrument that a sampler loads: one SFZ file, a WAV file per key, a README.

    timbrel_x0.20_y-0.40/
      timbrel_x0.20_y-0.40.sfz      one region per key; the outermost reach to the ends of the keyboard
      samples/…-048.wav … -072.wav  24 kHz, mono, 16 bit, peak at -1 dBFS
      README.txt                    what it is, how it plays, licence

A note is played once through, with the release that was synthesised at its end; a key let go earlier fades it out.
It has no loop: a decaying sound has no seamless one, and where the end of a held one could be joined to its
middle, the join would be heard as a beat. Longer notes are had by synthesising longer ones.

The same instrument gives the same bytes, zipped ones included.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from timbrel.audio import wav_bytes
from timbrel.engine.results import Instrument
from timbrel.errors import InputError
from timbrel.library.manifest import Manifest

RELEASE_SECONDS = 0.3
"""How long a key that is let go before the end of its sample takes to fade."""

_LOWEST, _HIGHEST = 0, 127
_SAMPLES = "samples"
# The earliest date that a zip can hold: without a date, equal instruments are equal files.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


def instrument_name(instrument: Instrument) -> str:
    """The instrument's name, fit for a file: letters, digits, dots, hyphens and underscores."""
    return f"timbrel_x{instrument.x:.2f}_y{instrument.y:.2f}"


def instrument_files(instrument: Instrument, manifest: Manifest) -> dict[str, bytes]:
    """Every file of the instrument by its path inside the folder; ``manifest`` is that of its bundle."""
    name = instrument_name(instrument)
    files = {
        f"{name}.sfz": _sfz(instrument, manifest).encode("ascii"),
        "README.txt": _readme(instrument, manifest).encode("utf-8"),
    }
    return files | {f"{_SAMPLES}/{_sample(name, key)}": wav_bytes(audio) for key, audio in instrument.notes}


def zipped(files: Mapping[str, bytes], folder: str) -> bytes:
    """The files inside ``folder`` as a zip archive. Stored, not packed: WAV hardly shrinks, and no zlib decides
    on the bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(f"{folder}/{path}", _NO_DATE)
            entry.create_system = 3  # Unix, whatever this runs on
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def write_folder(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files as ``folder``, all or none. Raises InputError when something is there already."""
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    built = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for path, data in files.items():
            (built / path).parent.mkdir(exist_ok=True)
            (built / path).write_bytes(data)
        built.chmod(0o755)
        os.rename(built, folder)  # replaces an empty folder, never a full one
    except BaseException:
        shutil.rmtree(built, ignore_errors=True)
        raise


def check_new(folder: Path) -> None:
    """Raises InputError unless ``folder`` can be made, or is empty: nothing of the user's is written over."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is there already: name a new folder, or a file that ends in .zip")


def _sample(name: str, key: int) -> str:
    return f"{name}-{key:03d}.wav"


def _sfz(instrument: Instrument, manifest: Manifest) -> str:
    """The SFZ (version 1) text. Paths are written with slashes, which samplers read on every system."""
    name = instrument_name(instrument)
    keys = [key for key, _ in instrument.notes]
    lines = [
        f"// Timbrel: ({instrument.x:.4f}, {instrument.y:.4f}) on the timbre map of bundle {manifest.id[:12]}",
        "<global>",
        "loop_mode=no_loop",
        f"ampeg_release={RELEASE_SECONDS:g}",
    ]
    for key in keys:
        low = _LOWEST if key == keys[0] else key
        high = _HIGHEST if key == keys[-1] else key
        lines += [
            "<region>",
            f"lokey={low} hikey={high} pitch_keycenter={key}",
            f"sample={_SAMPLES}/{_sample(name, key)}",
        ]
    return "\n".join(lines) + "\n"


def _readme(instrument: Instrument, manifest: Manifest) -> str:
    name = instrument_name(instrument)
    low, high = instrument.notes[0][0], instrument.notes[-1][0]
    models = [manifest.models[model] for model in ("generator", "codec_decoder")]
    licences = ", ".join(sorted({model.licence for model in models}))
    data = "\n".join(f"  {each.name}: {each.source} ({each.licence})" for each in manifest.data)
    return f"""\
{name}

{len(instrument.notes)} notes synthesised by Timbrel at ({instrument.x:.4f}, {instrument.y:.4f}) on the timbre map
of bundle {manifest.id}.

Load {name}.sfz into any SFZ sampler. Keys {low} to {high} have a sample each; keys beyond play
the nearest one at their own pitch. A sample plays once through and is not looped; a key let
go earlier fades out in {RELEASE_SECONDS:g} s. Every sample peaks at -1 dBFS: turn the sampler down for chords.

Licence: {licences}, that of the models that synthesised the notes. They learned from:
{data}
"""
