"""What sound designers move: parameters of two synthesisers, the range of each, and how a preset is made ready for it.

The attributes are those of the published test (P. Combes, S. Weinzierl, K. Obermayer, 2025: attack, decay, cutoff,
resonance, filter decay, the depth and the rate of an LFO on level, filter and pitch, reverb) but for the pitch itself,
and what else stands on most front panels. As there, a preset is made ready first: a filter that is to be heard moving
is a low pass within the note's partials, an envelope that is to be heard decaying has nothing to rest on.

Steps are even in what is heard where that is known: times, rates and depths of vibrato have their values spaced for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

Span = tuple[float, float]
# One control's value: fixed, or drawn evenly from a span, or one of some.
Setting = float | Span | list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """``control`` moves over ``values`` (``even`` and the like); ``ready``: the other controls, set or drawn.

    ``modulations``: (source, destination, amount) added to the patch (Vital); an amount of None is the one that moves,
    and ``control`` is then empty.
    """

    name: str
    control: str
    values: tuple[float, ...]
    ready: Mapping[str, Setting] = field(default_factory=dict)
    modulations: tuple[tuple[str, str, Span | None], ...] = ()


STEPS = 20


def _even(low: float, high: float) -> tuple[float, ...]:
    return tuple(float(value) for value in np.linspace(low, high, STEPS))


def _through(law: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> tuple[float, ...]:
    """Values whose ``law``'s inverse is even: ``law`` gives the control's value of what is heard."""
    return tuple(float(value) for value in law(np.linspace(low, high, STEPS)))


# Sustain, even in decibels.
_LEVELS = _through(lambda db: 10.0 ** (db / 20.0), -26.0, -1.0)
# amsynth's own laws: an LFO's rate is the control squared in Hz, vibrato's depth the control cubed.
_LFO_HZ = (1.0, 9.0)
_AMSYNTH_RATES = _through(
    lambda octave: np.sqrt(2.0**octave), float(np.log2(_LFO_HZ[0])), float(np.log2(_LFO_HZ[1]))
)
_AMSYNTH_RATE: Span = (1.7, 2.6)  # 2.9 ... 6.8 Hz
_AMSYNTH_STILL: dict[str, Setting] = {
    "amp_mod_amount": -1.0,
    "filter_mod_amount": -1.0,
    "freq_mod_amount": 0.0,
    "lfo_waveform": 0.0,
    "portamento_time": 0.0,
    "keyboard_mode": 0.0,
}
_AMSYNTH_LOW_PASS: dict[str, Setting] = {"filter_type": 0.0, "filter_kbd_track": 1.0}
_AMSYNTH_STEADY: dict[str, Setting] = {"amp_attack": (0.0, 0.3), "amp_sustain": (0.6, 1.0)}


def _amsynth(name: str, control: str, values: tuple[float, ...], **ready: Setting) -> Attribute:
    return Attribute(name=name, control=control, values=values, ready=_AMSYNTH_STILL | ready)


AMSYNTH = (
    _amsynth("amp attack", "amp_attack", _even(0.2, 1.25), amp_sustain=(0.6, 1.0)),
    _amsynth("amp decay", "amp_decay", _even(0.4, 1.3), amp_attack=(0.0, 0.3), amp_sustain=0.0),
    _amsynth("amp sustain", "amp_sustain", _LEVELS, amp_attack=(0.0, 0.3), amp_decay=(0.4, 0.8)),
    _amsynth(
        "filter cutoff", "filter_cutoff", _even(-0.2, 1.1),
        **_AMSYNTH_LOW_PASS, **_AMSYNTH_STEADY, filter_env_amount=(0.0, 3.0), filter_resonance=(0.0, 0.6),
    ),
    _amsynth(
        "filter resonance", "filter_resonance", _even(0.0, 0.95),
        **_AMSYNTH_LOW_PASS, **_AMSYNTH_STEADY, filter_env_amount=(0.0, 3.0), filter_cutoff=(0.2, 0.7),
    ),
    _amsynth(
        "filter envelope amount", "filter_env_amount", _even(0.0, 14.0),
        **_AMSYNTH_LOW_PASS, **_AMSYNTH_STEADY, filter_cutoff=(-0.2, 0.2), filter_attack=(0.0, 0.2),
        filter_decay=(0.5, 1.1), filter_sustain=(0.0, 0.5),
    ),
    _amsynth(
        "filter decay", "filter_decay", _even(0.3, 1.3),
        **_AMSYNTH_LOW_PASS, **_AMSYNTH_STEADY, filter_cutoff=(-0.2, 0.2), filter_env_amount=(6.0, 14.0),
        filter_attack=0.0, filter_sustain=0.0,
    ),
    _amsynth("tremolo depth", "amp_mod_amount", _even(-1.0, 1.0), **_AMSYNTH_STEADY, lfo_freq=_AMSYNTH_RATE),
    _amsynth(
        "filter LFO depth", "filter_mod_amount", _even(-1.0, 0.8),
        **_AMSYNTH_LOW_PASS, **_AMSYNTH_STEADY, filter_cutoff=(0.2, 0.7), lfo_freq=_AMSYNTH_RATE,
    ),
    _amsynth(
        "vibrato depth", "freq_mod_amount", _through(np.cbrt, 0.0, 0.15),
        **_AMSYNTH_STEADY, freq_mod_osc=0.0, lfo_freq=_AMSYNTH_RATE,
    ),
    _amsynth("tremolo rate", "lfo_freq", _AMSYNTH_RATES, **_AMSYNTH_STEADY | {"amp_mod_amount": (0.2, 0.9)}),
    _amsynth(
        "filter LFO rate", "lfo_freq", _AMSYNTH_RATES,
        **_AMSYNTH_LOW_PASS, **_AMSYNTH_STEADY | {"filter_mod_amount": (-0.3, 0.6)}, filter_cutoff=(0.2, 0.7),
    ),
    _amsynth(
        "vibrato rate", "lfo_freq", _AMSYNTH_RATES,
        **_AMSYNTH_STEADY | {"freq_mod_amount": (0.3, 0.5)}, freq_mod_osc=0.0,
    ),
    _amsynth("reverb", "reverb_wet", _even(0.0, 0.9), reverb_roomsize=(0.4, 0.9)),
    _amsynth("drive", "distortion_crunch", _even(0.05, 0.9)),
    _amsynth(
        "oscillator mix", "osc_mix", _even(-0.95, 0.95),
        osc1_waveform=[0.0, 1.0], osc2_waveform=2.0, osc2_range=[0.0, 1.0], osc_mix_mode=0.0, osc2_sync=0.0,
    ),
    _amsynth("pulse width", "osc1_pulsewidth", _even(0.0, 0.85), osc1_waveform=1.0, osc_mix=(-1.0, -0.4)),
)  # fmt: skip

_VITAL_RATE: Span = (1.5, 2.8)  # octaves above 1 Hz
_VITAL_RATES = _even(0.0, 3.2)
_VITAL_LFO: dict[str, Setting] = {"lfo_2_sync": 0.0, "lfo_2_frequency": _VITAL_RATE}
_VITAL_FILTER: dict[str, Setting] = {"filter_1_on": 1.0, "filter_1_keytrack": 0.0, "filter_1_blend": 0.0}
_VITAL_STEADY: dict[str, Setting] = {"env_1_attack": (0.1, 0.4), "env_1_sustain": (0.6, 1.0)}


def _vital(
    name: str,
    control: str,
    values: tuple[float, ...],
    *modulations: tuple[str, str, Span | None],
    **ready: Setting,
) -> Attribute:
    return Attribute(name=name, control=control, values=values, ready=ready, modulations=modulations)


VITAL = (
    _vital("amp attack", "env_1_attack", _even(0.3, 1.2), env_1_sustain=(0.6, 1.0)),
    _vital("amp decay", "env_1_decay", _even(0.5, 1.3), env_1_attack=(0.1, 0.4), env_1_sustain=0.0),
    _vital("amp sustain", "env_1_sustain", _LEVELS, env_1_attack=(0.1, 0.4), env_1_decay=(0.6, 0.9)),
    _vital("filter cutoff", "filter_1_cutoff", _even(40.0, 112.0), **_VITAL_FILTER, **_VITAL_STEADY),
    _vital(
        "filter resonance", "filter_1_resonance", _even(0.1, 0.95),
        **_VITAL_FILTER, **_VITAL_STEADY, filter_1_cutoff=(65.0, 95.0),
    ),
    _vital(
        "filter envelope amount", "", _even(0.0, 0.7), ("env_2", "filter_1_cutoff", None),
        **_VITAL_FILTER, **_VITAL_STEADY, filter_1_cutoff=(40.0, 60.0), env_2_decay=(0.7, 1.2),
        env_2_sustain=(0.0, 0.5),
    ),
    _vital(
        "filter decay", "env_2_decay", _even(0.4, 1.35), ("env_2", "filter_1_cutoff", (0.3, 0.6)),
        **_VITAL_FILTER, **_VITAL_STEADY, filter_1_cutoff=(40.0, 60.0), env_2_sustain=0.0,
    ),
    _vital(
        "tremolo depth", "", _even(0.0, -0.95), ("lfo_2", "voice_amplitude", None), **_VITAL_LFO, **_VITAL_STEADY,
    ),
    _vital(
        "filter LFO depth", "", _even(0.0, 0.5), ("lfo_2", "filter_1_cutoff", None),
        **_VITAL_FILTER, **_VITAL_LFO, **_VITAL_STEADY, filter_1_cutoff=(50.0, 75.0),
    ),
    _vital("vibrato depth", "", _even(0.0, 0.5), ("lfo_2", "voice_tune", None), **_VITAL_LFO, **_VITAL_STEADY),
    _vital(
        "tremolo rate", "lfo_2_frequency", _VITAL_RATES, ("lfo_2", "voice_amplitude", (-0.9, -0.5)),
        lfo_2_sync=0.0, **_VITAL_STEADY,
    ),
    _vital(
        "filter LFO rate", "lfo_2_frequency", _VITAL_RATES, ("lfo_2", "filter_1_cutoff", (0.2, 0.4)),
        **_VITAL_FILTER, lfo_2_sync=0.0, **_VITAL_STEADY, filter_1_cutoff=(50.0, 75.0),
    ),
    _vital(
        "vibrato rate", "lfo_2_frequency", _VITAL_RATES, ("lfo_2", "voice_tune", (0.15, 0.5)),
        lfo_2_sync=0.0, **_VITAL_STEADY,
    ),
    _vital("reverb", "reverb_dry_wet", _even(0.0, 0.9), reverb_on=1.0, reverb_decay_time=(-1.0, 2.0)),
    _vital("drive", "distortion_drive", _even(0.0, 28.0), distortion_on=1.0, distortion_type=[0.0, 1.0]),
    _vital(
        "oscillator mix", "osc_2_level", _even(0.0, 1.0),
        osc_1_level=0.5, osc_2_on=1.0, osc_2_transpose=[7.0, 12.0, 19.0], osc_2_random_phase=0.0,
    ),
    _vital(
        "FM index", "osc_1_distortion_amount", _even(0.05, 0.8),
        osc_1_distortion_type=7.0, osc_2_on=1.0, osc_2_level=0.0, osc_2_transpose=[0.0, 12.0, 19.0],
        osc_2_tune=0.0, osc_2_random_phase=0.0,
    ),
    _vital(
        "unison detune", "osc_1_unison_detune", _even(0.5, 6.0), osc_1_unison_voices=[3.0, 5.0, 7.0], osc_2_on=0.0,
    ),
    _vital("chorus", "chorus_dry_wet", _even(0.0, 0.9), chorus_on=1.0),
)  # fmt: skip

ATTRIBUTES: Mapping[str, tuple[Attribute, ...]] = {"amsynth": AMSYNTH, "vital": VITAL}
