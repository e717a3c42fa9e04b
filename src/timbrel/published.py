"""Weights that others published: what they are, where they lie, and how to get them.

None of them is part of this repository. A file is taken from the folder that TIMBREL_WEIGHTS names, else from the
user's cache, where ``fetch`` puts it: by HTTPS, going on where a broken download ended, and only under its hash.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from timbrel.downloads import Progress, Remote, download
from timbrel.errors import DataError, NotFound
from timbrel.files import sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One file. ``sha256``: all of it, or its first digits where its publisher gives no more.

    ``unpacked``: the same content under another name, if whoever installs it otherwise has it so; name and sha256.
    """

    name: str
    file: str
    url: str
    sha256: str
    licence: str
    about: str
    unpacked: tuple[str, str] | None = None


_ROBERTA = "https://huggingface.co/FacebookAI/roberta-base/resolve/e2da8e2f811d1448a5b465c236feacd80ffbac7b"
CATALOGUE = {
    each.name: each
    for each in (
        Published(
            name="efficientat-mn04",
            file="mn04_as_mAP_432.pt",
            url="https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt",
            sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
            licence="MIT",
            about="EfficientAT, MobileNetV3 of width 0.4, AudioSet (Schmid, Koutini and Widmer 2023)",
        ),
        Published(
            name="encodec-24khz",
            file="encodec_24khz-d7cc33bc.th",
            url="https://dl.fbaipublicfiles.com/encodec/v0/encodec_24khz-d7cc33bc.th",
            sha256="d7cc33bc",
            licence="CC-BY-NC-4.0: not for commercial use",
            about="EnCodec, 24 kHz (Défossez, Copet, Synnaeve and Adi 2022)",
        ),
        Published(
            name="openl3-music",
            file="openl3_audio_mel256_music-v0_4_0.h5.gz",
            url="https://github.com/marl/openl3/raw/models/openl3_audio_mel256_music-v0_4_0.h5.gz",
            sha256="e379f41e880b78e157c199ebddac80d3764e6a46282bcccdbe875bcf538f9afd",
            licence="CC-BY-4.0",
            about="OpenL3, 256 mel bands, music (Cramer, Wu, Salamon and Bello 2019)",
            unpacked=(
                "openl3_audio_mel256_music.h5",
                "624ee7b1dd5ff87e18073f66fd8b2052bebb8ac70210e9c0937c0c940c63e9d6",
            ),
        ),
        Published(
            name="clap-music",
            file="music_audioset_epoch_15_esc_90.14.pt",
            url="https://huggingface.co/lukewys/laion_clap/resolve/main/music_audioset_epoch_15_esc_90.14.pt",
            sha256="fae3e9c087f2909c28a09dc31c8dfcdacbc42ba44c70e972b58c1bd1caf6dedd",
            licence="CC0-1.0",
            about="LAION CLAP, HTSAT-base, music and AudioSet (Wu et al. 2023); 2.4 GB",
        ),
        Published(
            name="clap-630k",
            file="630k-audioset-best.pt",
            url="https://huggingface.co/lukewys/laion_clap/resolve/main/630k-audioset-best.pt",
            sha256="8053c9775516af2f4902e1e8281e356cc1bf7a85e8b761908170767b77c3f037",
            licence="CC0-1.0",
            about="LAION CLAP, HTSAT-tiny, LAION-Audio-630K and AudioSet (Wu et al. 2023); 1.9 GB",
        ),
        Published(
            name="roberta-vocabulary",
            file="roberta-base-vocab.json",
            url=f"{_ROBERTA}/vocab.json",
            sha256="9e7f63c2d15d666b52e21d250d2e513b87c9b713cfa6987a82ed89e5e6e50655",
            licence="MIT",
            about="RoBERTa's tokens, for CLAP's text tower (Liu et al. 2019)",
        ),
        Published(
            name="roberta-merges",
            file="roberta-base-merges.txt",
            url=f"{_ROBERTA}/merges.txt",
            sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            licence="MIT",
            about="How RoBERTa's tokens are put together, for CLAP's text tower",
        ),
    )
}


def published(name: str) -> Published:
    """The entry of the catalogue. Raises NotFound, which names those that there are."""
    try:
        return CATALOGUE[name]
    except KeyError:
        raise NotFound(f"no weights are called {name!r}: there are {', '.join(CATALOGUE)}") from None


def cache_folder() -> Path:
    """Where ``fetch`` puts files when it is not told: TIMBREL_WEIGHTS, else ``timbrel/weights`` in the user's cache."""
    named = os.environ.get("TIMBREL_WEIGHTS", "")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "timbrel" / "weights"


def find(name: str) -> Path:
    """The file, whole. Raises DataError that names both ways to get it; NotFound for a name that is not known."""
    entry = published(name)
    path, sha256 = cache_folder() / entry.file, entry.sha256
    if entry.unpacked and not path.is_file() and path.with_name(entry.unpacked[0]).is_file():
        path, sha256 = path.with_name(entry.unpacked[0]), entry.unpacked[1]
    if not path.is_file():
        raise DataError(
            f"{path} is missing: `timbrel weights fetch {name}` gets it ({entry.licence}), or lay {entry.file} into "
            "the folder that TIMBREL_WEIGHTS names"
        )
    if not sha256_of(path).startswith(sha256):
        raise DataError(f"{path} is not the published file: remove it, then `timbrel weights fetch {name}`")
    return path


def fetch(entry: Published, folder: Path, progress: Progress = lambda what, done, total: None) -> Path:
    """Download ``entry`` into ``folder`` and return its path; a file that is there and whole is left as it is.

    Goes on where a broken download ended. Raises DataError as ``downloads.download``.
    """
    remote = Remote(
        name=entry.name,
        url=entry.url,
        digest=f"sha256:{entry.sha256}",
        by_hand=f"lay {entry.file} into the folder that TIMBREL_WEIGHTS names",
    )
    return download(remote, folder / entry.file, progress)
