"""Templates of FM voices: what makes six sine operators a brass, a bell, an organ.

A template draws a voice from a seeded generator: the algorithm, the frequency ratios, the envelopes and the
touch are those that give the family its character (J. Chowning, "The Synthesis of Complex Audio Spectra by
Means of Frequency Modulation", JAES 21(7), 1973; J. Chowning and D. Bristow, "FM Theory and Applications",
1986); levels, rates, secondary ratios and modulation vary widely within it.

At least one loud carrier of every template runs at ratio 1, so that most voices sound at the key pressed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from timbrel.notes.dx7 import Four, Operator

Envelope = tuple[Four, Four]
Span = tuple[int, int]


class Dice:
    """A seeded generator with the few draws that templates need."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def within(self, span: Span) -> int:
        """An integer of ``span``, both ends included."""
        return int(self._generator.integers(span[0], span[1] + 1))

    def one_of(self, values: Sequence[Any]) -> Any:
        return values[int(self._generator.integers(len(values)))]

    def chance(self, probability: float) -> bool:
        return bool(self._generator.random() < probability)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """What a template draws; operators not named stay silent. ``extra`` holds further fields of the voice."""

    algorithm: int
    operators: dict[int, Operator]
    feedback: int = 0
    extra: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """``label`` of four letters goes into the voices' names."""

    name: str
    label: str
    family: str
    draw: Callable[[Dice], Sketch]


def operator(ratio: float, output: int, envelope: Envelope, **settings: Any) -> Operator:
    """An operator at ``ratio`` times the key's frequency (nearest that coarse and fine can give)."""
    coarse = int(ratio)
    base = coarse if coarse else 0.5
    fine = min(99, max(0, round((ratio / base - 1) * 100)))
    rates, levels = envelope
    output = min(99, max(0, output))
    return Operator(rates=rates, levels=levels, output=output, coarse=coarse, fine=fine, **settings)


def held(dice: Dice, *, attack: Span, sustain: Span = (85, 99), release: Span = (50, 75)) -> Envelope:
    """Rises, settles and stays until the key is let go."""
    level = dice.within(sustain)
    middle = dice.within((level, 99))
    rates = (dice.within(attack), dice.within((35, 70)), dice.within((25, 50)), dice.within(release))
    return rates, (99, middle, level, 0)


def ringing(
    dice: Dice, *, decay: Span, tail: Span, release: Span = (40, 65), knee: Span = (70, 92)
) -> Envelope:
    """Struck or plucked: a fast fall to the knee, then a slow one to silence."""
    rates = (dice.within((90, 99)), dice.within(decay), dice.within(tail), dice.within(release))
    return rates, (99, dice.within(knee), 0, 0)


def swelling(dice: Dice, *, attack: Span, peak: Span = (80, 99)) -> Envelope:
    """A modulator that opens slowly, so that the tone brightens while it is held."""
    level = dice.within(peak)
    rates = (dice.within(attack), dice.within((20, 50)), dice.within((15, 40)), dice.within((45, 70)))
    return rates, (level, dice.within((level - 20, level)), dice.within((level - 25, level)), 0)


def touch(dice: Dice, span: Span = (2, 5), scaling: Span = (0, 3), darken: Span = (0, 35)) -> dict[str, int]:
    """A modulator's answer to velocity and key: brighter when struck harder, darker and shorter up the keyboard."""
    return {
        "velocity": dice.within(span),
        "rate_scaling": dice.within(scaling),
        "break_point": dice.within((30, 48)),
        "right_depth": dice.within(darken),
        "right_curve": dice.one_of((0, 1)),
    }


def voiced(dice: Dice, span: Span = (1, 3), scaling: Span = (0, 2), spread: int = 2) -> dict[str, int]:
    """A carrier's answer to velocity and key, with a little detune."""
    return {
        "velocity": dice.within(span),
        "rate_scaling": dice.within(scaling),
        "detune": 7 + dice.within((-spread, spread)),
    }


def vibrato(dice: Dice, depth: Span = (0, 12), speed: Span = (28, 40)) -> dict[str, int]:
    """Delayed vibrato, a few cents deep."""
    return {
        "lfo_speed": dice.within(speed),
        "lfo_delay": dice.within((20, 60)),
        "lfo_pitch_depth": dice.within(depth),
        "pitch_sensitivity": dice.within((1, 2)),
        "lfo_wave": dice.one_of((0, 4)),
    }


def _electric_piano(dice: Dice) -> Sketch:
    def body() -> Envelope:
        return ringing(dice, decay=(20, 45), tail=(15, 32))

    def tine() -> Envelope:
        return ringing(dice, decay=(45, 75), tail=(30, 55), knee=(40, 80))

    ring = dice.one_of((7, 9, 11, 13, 14, 14, 15, 17))
    return Sketch(
        algorithm=5,
        feedback=dice.within((0, 6)),
        operators={
            1: operator(1, dice.within((88, 96)), body(), **voiced(dice)),
            2: operator(ring, dice.within((35, 68)), tine(), **touch(dice, (4, 7))),
            3: operator(1, dice.within((90, 99)), body(), **voiced(dice)),
            4: operator(1, dice.within((50, 88)), body(), **touch(dice, (3, 6))),
            5: operator(dice.one_of((1, 1, 2)), dice.within((70, 90)), body(), **voiced(dice)),
            6: operator(dice.one_of((1, 1, 2, 3)), dice.within((40, 78)), tine(), **touch(dice)),
        },
    )


def _clavinet(dice: Dice) -> Sketch:
    def string() -> Envelope:
        return ringing(dice, decay=(30, 58), tail=(25, 45), release=(60, 80), knee=(65, 95))

    return Sketch(
        algorithm=dice.one_of((3, 4, 5, 8)),
        feedback=dice.within((2, 7)),
        operators={
            1: operator(1, dice.within((92, 99)), string(), **voiced(dice)),
            2: operator(dice.one_of((3, 4, 5, 6, 7)), dice.within((62, 84)), string(), **touch(dice, (2, 5))),
            3: operator(dice.one_of((1, 2, 3)), dice.within((55, 80)), string(), **touch(dice, (1, 4))),
            4: operator(1, dice.within((80, 96)), string(), **voiced(dice)),
            5: operator(dice.one_of((2, 3, 5, 8)), dice.within((60, 84)), string(), **touch(dice)),
            6: operator(dice.one_of((1, 4, 9)), dice.within((40, 76)), string(), **touch(dice)),
        },
    )


def _piano(dice: Dice) -> Sketch:
    def string(knee: Span = (75, 94)) -> Envelope:
        return ringing(dice, decay=(25, 48), tail=(18, 33), knee=knee, release=(50, 70))

    return Sketch(
        algorithm=dice.one_of((1, 2, 3, 7, 19)),
        feedback=dice.within((0, 6)),
        operators={
            1: operator(1, dice.within((90, 99)), string(), **voiced(dice, scaling=(1, 4))),
            2: operator(dice.one_of((1, 1, 2, 3)), dice.within((58, 84)), string(), **touch(dice, (3, 6))),
            3: operator(1, dice.within((78, 96)), string(), **voiced(dice, scaling=(1, 4))),
            4: operator(1, dice.within((65, 88)), string(), **touch(dice, (2, 5), (1, 4))),
            5: operator(dice.one_of((1, 2, 3, 5)), dice.within((40, 76)), string((50, 80)), **touch(dice)),
            6: operator(dice.one_of((3, 5, 8, 11)), dice.within((30, 66)), string((30, 70)), **touch(dice)),
        },
    )


def _bell(dice: Dice) -> Sketch:
    def ring(tail: Span = (12, 28)) -> Envelope:
        return ringing(dice, decay=(18, 45), tail=tail, knee=(75, 96), release=(20, 45))

    strike = dice.one_of((1.41, 2.76, 3.5, 3.5, 4.24, 5.4, 7.07, 2.0, 3.0, 9.0))
    return Sketch(
        algorithm=dice.one_of((5, 5, 21, 22)),
        feedback=dice.within((0, 5)),
        operators={
            1: operator(1, dice.within((92, 99)), ring(), **voiced(dice, spread=1)),
            2: operator(strike, dice.within((45, 72)), ring((25, 45)), **touch(dice, (2, 6))),
            3: operator(1, dice.within((80, 95)), ring(), **voiced(dice, spread=1)),
            4: operator(dice.one_of((2, 3, 3.5, 7)), dice.within((30, 66)), ring((20, 45)), **touch(dice)),
            5: operator(
                dice.one_of((2, 2.76, 4, 5.4)), dice.within((50, 82)), ring((25, 45)), **voiced(dice)
            ),
            6: operator(dice.one_of((1, 3.5, 4, 6)), dice.within((30, 68)), ring((30, 50)), **touch(dice)),
        },
    )


def _mallet(dice: Dice) -> Sketch:
    def bar() -> Envelope:
        return ringing(dice, decay=(35, 62), tail=(26, 52), knee=(60, 95), release=(35, 60))

    def knock() -> Envelope:
        return ringing(dice, decay=(60, 88), tail=(45, 70), knee=(20, 70))

    return Sketch(
        algorithm=dice.one_of((5, 6, 7, 8)),
        feedback=dice.within((0, 7)),
        operators={
            1: operator(1, dice.within((93, 99)), bar(), **voiced(dice, scaling=(1, 4), spread=1)),
            2: operator(
                dice.one_of((3, 4, 5, 10, 14)), dice.within((40, 78)), knock(), **touch(dice, (3, 7))
            ),
            3: operator(1, dice.within((78, 94)), bar(), **voiced(dice, scaling=(1, 4), spread=1)),
            4: operator(dice.one_of((1, 2, 4, 7)), dice.within((35, 72)), knock(), **touch(dice)),
            5: operator(dice.one_of((3, 4, 4, 10)), dice.within((40, 80)), knock(), **voiced(dice)),
            6: operator(dice.one_of((1, 3, 11)), dice.within((30, 70)), knock(), **touch(dice)),
        },
    )


def _vibes(dice: Dice) -> Sketch:
    def bar() -> Envelope:
        return ringing(dice, decay=(16, 36), tail=(14, 28), knee=(80, 96), release=(30, 50))

    return Sketch(
        algorithm=dice.one_of((23, 25, 29, 31, 32)),
        feedback=dice.within((0, 4)),
        operators={
            1: operator(
                1, dice.within((92, 99)), bar(), amplitude_modulation=dice.within((0, 2)), **voiced(dice)
            ),
            2: operator(1, dice.within((75, 92)), bar(), **voiced(dice)),
            3: operator(dice.one_of((1, 2, 3, 4)), dice.within((45, 85)), bar(), **voiced(dice, (2, 5))),
            4: operator(1, dice.within((60, 90)), bar(), **voiced(dice)),
            5: operator(dice.one_of((2, 4, 4, 6)), dice.within((40, 80)), bar(), **voiced(dice, (2, 6))),
            6: operator(dice.one_of((3, 4, 7, 10)), dice.within((35, 70)), bar(), **touch(dice, (3, 6))),
        },
        extra={"lfo_speed": dice.within((25, 45)), "lfo_amplitude_depth": dice.within((0, 60))},
    )


def _drawbar_organ(dice: Dice) -> Sketch:
    def pipe() -> Envelope:
        return held(dice, attack=(85, 99), sustain=(95, 99), release=(65, 90))

    bars = [0.5, 1, 1.5, 2, 3, 4, 5, 6, 8]
    drawn = [dice.one_of(bars if dice.chance(0.5) else bars[1:]) for _ in range(4)]
    click = ringing(dice, decay=(70, 90), tail=(60, 80), knee=(10, 60))
    levels = [dice.within((55, 95)) for _ in drawn]
    # The sub-octave stays below the foundation, or the voice would be filed an octave down.
    levels = [min(level, 74) if bar < 1 else level for bar, level in zip(drawn, levels, strict=True)]
    operators = {
        number: operator(bar, level, pipe(), **voiced(dice, (0, 1), (0, 0), 1))
        for number, (bar, level) in enumerate(zip(drawn, levels, strict=True), start=2)
    }
    operators[1] = operator(1, dice.within((92, 99)), pipe(), **voiced(dice, (0, 1), (0, 0), 1))
    operators[6] = operator(
        dice.one_of((2, 3, 4, 6)),
        dice.within((40, 80)),
        click if dice.chance(0.4) else pipe(),
        **voiced(dice, (1, 4), spread=1),
    )
    return Sketch(
        algorithm=dice.one_of((32, 32, 31, 25, 24)),
        feedback=dice.within((0, 6)),
        operators=operators,
        extra=vibrato(dice, (0, 8), (35, 48)),
    )


def _pipe_organ(dice: Dice) -> Sketch:
    def pipe() -> Envelope:
        return held(dice, attack=(55, 80), sustain=(92, 99), release=(45, 60))

    return Sketch(
        algorithm=dice.one_of((5, 6, 22, 28, 30)),
        feedback=dice.within((2, 7)),
        operators={
            1: operator(1, dice.within((90, 99)), pipe(), **voiced(dice, (0, 1))),
            2: operator(dice.one_of((1, 2, 3)), dice.within((45, 78)), pipe(), **touch(dice, (0, 3))),
            3: operator(dice.one_of((1, 2)), dice.within((70, 92)), pipe(), **voiced(dice, (0, 1))),
            4: operator(dice.one_of((1, 2, 4)), dice.within((45, 76)), pipe(), **touch(dice, (0, 3))),
            5: operator(dice.one_of((2, 4, 8)), dice.within((55, 84)), pipe(), **voiced(dice, (0, 1))),
            6: operator(dice.one_of((1, 2, 3, 8)), dice.within((45, 78)), pipe(), **touch(dice, (0, 3))),
        },
    )


def _brass(dice: Dice) -> Sketch:
    def lip() -> Envelope:
        return held(dice, attack=(58, 76), sustain=(88, 99))

    def blare() -> Envelope:
        return swelling(dice, attack=(45, 68), peak=(88, 99))

    return Sketch(
        algorithm=dice.one_of((2, 18, 18, 22, 22)),
        feedback=dice.within((4, 7)),
        operators={
            1: operator(1, dice.within((93, 99)), lip(), **voiced(dice)),
            2: operator(1, dice.within((68, 86)), blare(), **touch(dice, (2, 5), darken=(10, 45))),
            3: operator(1, dice.within((70, 92)), lip(), **voiced(dice)),
            4: operator(1, dice.within((66, 90)), lip(), **voiced(dice)),
            5: operator(dice.one_of((1, 1, 2)), dice.within((62, 86)), lip(), **voiced(dice)),
            6: operator(1, dice.within((66, 86)), blare(), **touch(dice, (1, 4), darken=(10, 45))),
        },
        extra={
            "pitch_sensitivity": 1,
            "lfo_pitch_depth": dice.within((0, 8)),
            "lfo_delay": dice.within((30, 60)),
        },
    )


def _horn(dice: Dice) -> Sketch:
    def lip() -> Envelope:
        return held(dice, attack=(48, 66), sustain=(85, 99))

    def warm() -> Envelope:
        return swelling(dice, attack=(40, 60), peak=(75, 95))

    return Sketch(
        algorithm=dice.one_of((1, 2, 5, 22)),
        feedback=dice.within((0, 6)),
        operators={
            1: operator(1, dice.within((93, 99)), lip(), **voiced(dice)),
            2: operator(1, dice.within((55, 78)), warm(), **touch(dice, (2, 5), darken=(15, 50))),
            3: operator(1, dice.within((75, 92)), lip(), **voiced(dice)),
            4: operator(dice.one_of((1, 2)), dice.within((50, 74)), warm(), **touch(dice)),
            5: operator(1, dice.within((60, 82)), lip(), **voiced(dice)),
            6: operator(dice.one_of((1, 1, 3)), dice.within((45, 72)), warm(), **touch(dice)),
        },
        extra=vibrato(dice, (0, 6)),
    )


def _plucked_string(dice: Dice) -> Sketch:
    def string(knee: Span = (68, 94)) -> Envelope:
        return ringing(dice, decay=(30, 55), tail=(22, 40), knee=knee, release=(48, 70))

    return Sketch(
        algorithm=dice.one_of((1, 3, 8, 16, 17)),
        feedback=dice.within((3, 7)),
        operators={
            1: operator(1, dice.within((94, 99)), string(), **voiced(dice, scaling=(1, 3))),
            2: operator(
                dice.one_of((1, 2, 3)), dice.within((62, 84)), string(), **touch(dice, (2, 5), (1, 4))
            ),
            3: operator(dice.one_of((1, 1, 3)), dice.within((60, 86)), string(), **voiced(dice)),
            4: operator(dice.one_of((1, 2, 4)), dice.within((55, 84)), string(), **touch(dice)),
            5: operator(
                dice.one_of((2, 3, 5, 7)), dice.within((45, 78)), string((30, 70)), **touch(dice, (2, 5))
            ),
            6: operator(dice.one_of((1, 3, 6, 11)), dice.within((40, 78)), string((20, 60)), **touch(dice)),
        },
    )


def _harp(dice: Dice) -> Sketch:
    def string() -> Envelope:
        return ringing(dice, decay=(26, 46), tail=(22, 36), knee=(70, 92), release=(30, 50))

    return Sketch(
        algorithm=dice.one_of((1, 5, 7, 28)),
        feedback=dice.within((0, 6)),
        operators={
            1: operator(1, dice.within((93, 99)), string(), **voiced(dice, scaling=(1, 4))),
            2: operator(dice.one_of((1, 2, 3, 5)), dice.within((45, 76)), string(), **touch(dice, (2, 6))),
            3: operator(dice.one_of((1, 2)), dice.within((65, 88)), string(), **voiced(dice)),
            4: operator(dice.one_of((2, 3, 4)), dice.within((40, 74)), string(), **touch(dice)),
            5: operator(dice.one_of((1, 3, 6)), dice.within((40, 76)), string(), **voiced(dice)),
            6: operator(dice.one_of((1, 3, 7)), dice.within((35, 72)), string(), **touch(dice)),
        },
    )


STRUCK: Final[tuple[Template, ...]] = (
    Template(name="electric piano", label="EPno", family="keyboard", draw=_electric_piano),
    Template(name="brass", label="Bras", family="brass", draw=_brass),
    Template(name="bell", label="Bell", family="mallet", draw=_bell),
    Template(name="drawbar organ", label="Orgn", family="organ", draw=_drawbar_organ),
    Template(name="plucked string", label="Pluk", family="guitar", draw=_plucked_string),
    Template(name="clavinet", label="Clav", family="keyboard", draw=_clavinet),
    Template(name="horn", label="Horn", family="brass", draw=_horn),
    Template(name="mallet", label="Malt", family="mallet", draw=_mallet),
    Template(name="pipe organ", label="Pipe", family="organ", draw=_pipe_organ),
    Template(name="harp", label="Harp", family="guitar", draw=_harp),
    Template(name="piano", label="Pian", family="keyboard", draw=_piano),
    Template(name="vibraphone", label="Vibe", family="mallet", draw=_vibes),
)
