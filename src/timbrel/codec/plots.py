"""Pictures of what the codec does to a note. For stages and reports; serving does not import this."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from timbrel.codec.spectrum import FLOOR_DB, HOP, SAMPLE_RATE, log_magnitude, log_spectral_distance


def spectrogram_pair(
    title: str, original: np.ndarray, decoded: np.ndarray, *, second: str = "through the codec"
) -> Figure:
    """Original and decoded sound (24 kHz, same length) as two spectrograms over each other."""
    before, after = log_magnitude(original), log_magnitude(decoded)
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    extent = (0.0, len(before) * HOP / SAMPLE_RATE, 0.0, SAMPLE_RATE / 2000.0)
    names = (title, f"{second}: LSD {log_spectral_distance(before, after):.1f} dB")
    for axis, name, spectra in zip(axes, names, (before, after), strict=True):
        image = axis.imshow(
            spectra.T, origin="lower", aspect="auto", extent=extent, vmin=FLOOR_DB, vmax=0.0, cmap="magma"
        )
        axis.set_title(name, fontsize=10)
        axis.set_ylabel("kHz")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label="dB re full scale")
    return figure
