"""Templates of FM voices, continued: what is blown, bowed, sung, or held by a synthesiser; and its basses.

See fm_templates.py for the method.
"""

from __future__ import annotations

from typing import Final

from timbrel.notes.fm_templates import (
    Dice,
    Envelope,
    Sketch,
    Template,
    held,
    operator,
    ringing,
    swelling,
    touch,
    vibrato,
    voiced,
)


def _strings(dice: Dice) -> Sketch:
    def bow() -> Envelope:
        return held(dice, attack=(38, 60), sustain=(88, 99), release=(40, 58))

    def rosin() -> Envelope:
        return held(dice, attack=(40, 75), sustain=(80, 99), release=(40, 58))

    return Sketch(
        algorithm=dice.one_of((1, 2, 5, 15, 18, 22)),
        feedback=dice.within((4, 7)),
        operators={
            1: operator(1, dice.within((92, 99)), bow(), **voiced(dice, spread=4)),
            2: operator(dice.one_of((1, 1, 2)), dice.within((64, 82)), rosin(), **touch(dice, (1, 4))),
            3: operator(1, dice.within((76, 95)), bow(), **voiced(dice, spread=4)),
            4: operator(dice.one_of((1, 2, 3)), dice.within((60, 80)), rosin(), **touch(dice, (1, 4))),
            5: operator(dice.one_of((1, 2, 5)), dice.within((52, 80)), bow(), **voiced(dice, spread=4)),
            6: operator(dice.one_of((1, 1, 3, 8)), dice.within((60, 80)), rosin(), **touch(dice, (1, 3))),
        },
        extra=vibrato(dice, (2, 14)),
    )


def _pad(dice: Dice) -> Sketch:
    def cloud() -> Envelope:
        return held(dice, attack=(36, 50), sustain=(88, 99), release=(28, 45))

    def drift() -> Envelope:
        return swelling(dice, attack=(22, 45), peak=(70, 99))

    return Sketch(
        algorithm=dice.one_of((4, 5, 6, 20, 22, 26)),
        feedback=dice.within((0, 7)),
        operators={
            1: operator(1, dice.within((92, 99)), cloud(), **voiced(dice, (0, 2), spread=4)),
            2: operator(dice.one_of((1, 2, 3, 4)), dice.within((50, 82)), drift(), **touch(dice, (1, 4))),
            3: operator(
                dice.one_of((1, 1, 2)), dice.within((60, 84)), cloud(), **voiced(dice, (0, 2), spread=4)
            ),
            4: operator(
                dice.one_of((1, 2, 3)), dice.within((70, 90)), cloud(), **voiced(dice, (0, 2), spread=4)
            ),
            5: operator(dice.one_of((1, 2, 4, 7)), dice.within((45, 82)), drift(), **touch(dice, (1, 4))),
            6: operator(dice.one_of((1, 2, 5)), dice.within((45, 78)), drift(), **touch(dice, (1, 3))),
        },
        extra=vibrato(dice, (0, 10), (15, 35)),
    )


def _saw_lead(dice: Dice) -> Sketch:
    def gate() -> Envelope:
        return held(dice, attack=(75, 99), sustain=(88, 99), release=(55, 80))

    return Sketch(
        algorithm=dice.one_of((1, 7, 16, 17, 18, 22)),
        feedback=dice.within((5, 7)),
        operators={
            1: operator(1, dice.within((95, 99)), gate(), **voiced(dice, (1, 3))),
            2: operator(1, dice.within((74, 90)), gate(), **touch(dice, (1, 4), darken=(0, 25))),
            3: operator(dice.one_of((1, 1, 2)), dice.within((60, 86)), gate(), **voiced(dice, spread=4)),
            4: operator(dice.one_of((1, 2, 3)), dice.within((60, 84)), gate(), **touch(dice, (1, 3))),
            5: operator(dice.one_of((1, 2, 4)), dice.within((50, 80)), gate(), **touch(dice, (1, 3))),
            6: operator(dice.one_of((1, 2, 3)), dice.within((60, 86)), gate(), **touch(dice, (1, 3))),
        },
        extra=vibrato(dice, (0, 12)),
    )


def _square_lead(dice: Dice) -> Sketch:
    def gate() -> Envelope:
        return held(dice, attack=(72, 99), sustain=(85, 99), release=(55, 80))

    return Sketch(
        algorithm=dice.one_of((1, 3, 5, 8)),
        feedback=dice.within((0, 6)),
        operators={
            1: operator(1, dice.within((95, 99)), gate(), **voiced(dice, (1, 3))),
            2: operator(2, dice.within((66, 86)), gate(), **touch(dice, (1, 4), darken=(0, 25))),
            3: operator(dice.one_of((1, 2)), dice.within((50, 82)), gate(), **voiced(dice, spread=3)),
            4: operator(dice.one_of((1, 3)), dice.within((60, 88)), gate(), **voiced(dice, spread=3)),
            5: operator(dice.one_of((2, 4, 6)), dice.within((55, 80)), gate(), **touch(dice, (1, 3))),
            6: operator(dice.one_of((2, 4)), dice.within((40, 74)), gate(), **touch(dice, (1, 3))),
        },
        extra=vibrato(dice, (0, 14)),
    )


def _synth_bass(dice: Dice) -> Sketch:
    def body() -> Envelope:
        return (
            held(dice, attack=(85, 99), sustain=(75, 95), release=(60, 82))
            if dice.chance(0.5)
            else ringing(dice, decay=(25, 45), tail=(20, 34), release=(60, 80))
        )

    def bite() -> Envelope:
        return ringing(dice, decay=(35, 62), tail=(20, 45), knee=(55, 90), release=(55, 80))

    return Sketch(
        algorithm=dice.one_of((1, 16, 17, 18)),
        feedback=dice.within((3, 7)),
        operators={
            1: operator(1, dice.within((95, 99)), body(), **voiced(dice, (1, 3))),
            2: operator(1, dice.within((66, 88)), bite(), **touch(dice, (2, 6))),
            3: operator(dice.one_of((1, 1, 2)), dice.within((66, 86)), bite(), **touch(dice, (1, 4))),
            4: operator(dice.one_of((1, 2, 3)), dice.within((50, 80)), bite(), **touch(dice, (1, 4))),
            5: operator(dice.one_of((1, 2, 5)), dice.within((40, 76)), bite(), **touch(dice, (2, 5))),
            6: operator(dice.one_of((1, 1, 3)), dice.within((50, 82)), bite(), **touch(dice, (1, 4))),
        },
    )


def _picked_bass(dice: Dice) -> Sketch:
    def string() -> Envelope:
        return ringing(dice, decay=(26, 48), tail=(20, 34), knee=(72, 94), release=(62, 82))

    def slap() -> Envelope:
        return ringing(dice, decay=(55, 82), tail=(35, 60), knee=(25, 70))

    return Sketch(
        algorithm=dice.one_of((3, 5, 7, 19)),
        feedback=dice.within((2, 7)),
        operators={
            1: operator(1, dice.within((95, 99)), string(), **voiced(dice, (1, 3))),
            2: operator(dice.one_of((1, 2, 3)), dice.within((58, 80)), string(), **touch(dice, (2, 5))),
            3: operator(
                dice.one_of((1, 2)), dice.within((58, 80)), string(), **voiced(dice, (1, 3), spread=1)
            ),
            4: operator(1, dice.within((66, 88)), string(), **voiced(dice, (1, 3), spread=1)),
            5: operator(dice.one_of((3, 5, 8, 9)), dice.within((45, 78)), slap(), **touch(dice, (4, 7))),
            6: operator(dice.one_of((1, 5, 11)), dice.within((40, 74)), slap(), **touch(dice, (3, 6))),
        },
    )


def _flute(dice: Dice) -> Sketch:
    def air() -> Envelope:
        return held(dice, attack=(52, 72), sustain=(88, 99), release=(55, 72))

    chiff = ringing(dice, decay=(55, 80), tail=(35, 65), knee=(20, 75))
    return Sketch(
        algorithm=dice.one_of((1, 5, 22, 29)),
        feedback=dice.within((0, 7)),
        operators={
            1: operator(1, dice.within((94, 99)), air(), **voiced(dice, (1, 3), spread=1)),
            2: operator(dice.one_of((1, 2, 2, 3)), dice.within((35, 62)), air(), **touch(dice, (2, 5))),
            3: operator(dice.one_of((1, 2)), dice.within((55, 78)), air(), **voiced(dice, (1, 3), spread=1)),
            4: operator(dice.one_of((1, 2)), dice.within((30, 58)), air(), **touch(dice, (1, 4))),
            5: operator(dice.one_of((2, 3)), dice.within((38, 66)), air(), **voiced(dice, (2, 4), spread=1)),
            6: operator(dice.one_of((5, 7, 9, 12)), dice.within((40, 80)), chiff, **touch(dice, (1, 4))),
        },
        extra=vibrato(dice, (2, 16), (30, 42)),
    )


def _clarinet(dice: Dice) -> Sketch:
    def reed() -> Envelope:
        return held(dice, attack=(56, 76), sustain=(88, 99), release=(58, 76))

    return Sketch(
        algorithm=dice.one_of((1, 2, 5, 18)),
        feedback=dice.within((0, 4)),
        operators={
            1: operator(1, dice.within((95, 99)), reed(), **voiced(dice, (1, 3), spread=1)),
            2: operator(2, dice.within((54, 78)), reed(), **touch(dice, (2, 5), darken=(5, 40))),
            3: operator(dice.one_of((1, 3)), dice.within((52, 80)), reed(), **voiced(dice, (1, 3), spread=1)),
            4: operator(2, dice.within((45, 76)), reed(), **touch(dice, (1, 4))),
            5: operator(dice.one_of((1, 3, 5)), dice.within((35, 66)), reed(), **voiced(dice, (1, 3))),
            6: operator(dice.one_of((2, 4)), dice.within((40, 72)), reed(), **touch(dice, (1, 4))),
        },
        extra=vibrato(dice, (0, 8)),
    )


def _double_reed(dice: Dice) -> Sketch:
    """Oboes and saxophones: a weak fundamental under a formant, drawn by carriers at the third to sixth partial."""

    def reed() -> Envelope:
        return held(dice, attack=(56, 78), sustain=(88, 99), release=(58, 76))

    return Sketch(
        algorithm=dice.one_of((5, 6, 22)),
        feedback=dice.within((1, 7)),
        operators={
            1: operator(1, dice.within((90, 98)), reed(), **voiced(dice, (1, 3), spread=1)),
            2: operator(1, dice.within((60, 82)), reed(), **touch(dice, (2, 5))),
            3: operator(
                dice.one_of((2, 3, 3)), dice.within((74, 92)), reed(), **voiced(dice, (1, 3), spread=1)
            ),
            4: operator(1, dice.within((54, 78)), reed(), **touch(dice, (1, 4))),
            5: operator(
                dice.one_of((4, 5, 6)), dice.within((60, 86)), reed(), **voiced(dice, (1, 3), spread=1)
            ),
            6: operator(1, dice.within((50, 80)), reed(), **touch(dice, (1, 4))),
        },
        extra=vibrato(dice, (0, 14)),
    )


def _choir(dice: Dice) -> Sketch:
    """A vowel: the fundamental and two formants, each a carrier near its centre modulated at the key's pitch."""

    def breath() -> Envelope:
        return held(dice, attack=(42, 60), sustain=(90, 99), release=(40, 60))

    first, second = dice.one_of(((3, 5), (2, 4), (3, 4), (2, 7), (1, 8), (2, 9)))
    return Sketch(
        algorithm=5,
        feedback=dice.within((0, 6)),
        operators={
            1: operator(1, dice.within((93, 99)), breath(), **voiced(dice, (0, 2), spread=4)),
            2: operator(1, dice.within((35, 66)), breath(), **touch(dice, (1, 4))),
            3: operator(first, dice.within((74, 92)), breath(), **voiced(dice, (0, 2), spread=4)),
            4: operator(1, dice.within((45, 74)), breath(), **touch(dice, (1, 3))),
            5: operator(second, dice.within((56, 80)), breath(), **voiced(dice, (0, 2), spread=4)),
            6: operator(1, dice.within((40, 74)), breath(), **touch(dice, (1, 3))),
        },
        extra=vibrato(dice, (4, 18), (26, 38)),
    )


SUSTAINED: Final[tuple[Template, ...]] = (
    Template(name="strings", label="Strg", family="string", draw=_strings),
    Template(name="pad", label="Pad", family="string", draw=_pad),
    Template(name="saw lead", label="Saw", family="synth_lead", draw=_saw_lead),
    Template(name="square lead", label="Squr", family="synth_lead", draw=_square_lead),
    Template(name="synth bass", label="SBas", family="bass", draw=_synth_bass),
    Template(name="picked bass", label="Bass", family="bass", draw=_picked_bass),
    Template(name="flute", label="Flut", family="flute", draw=_flute),
    Template(name="clarinet", label="Clar", family="reed", draw=_clarinet),
    Template(name="double reed", label="Reed", family="reed", draw=_double_reed),
    Template(name="choir", label="Voix", family="vocal", draw=_choir),
)
