"""DX7 voices and banks: parse, check, write.

Three layouts of one voice (operators run from 6 to 1 in all of them):

    packed   128 bytes  17 per operator, as in a 32-voice bank
    unpacked 155 bytes  21 per operator ("VCED"), as in a single-voice dump
    engine   156 bytes  unpacked + operator switches

    bank file    F0 43 0n 09 20 00  32 x 128 bytes  checksum F7    4,104 bytes
    voice file   F0 43 0n 00 01 1B  155 bytes       checksum F7      163 bytes

The checksum is the two's complement of the sum of the data bytes, low 7 bits (DX7 owner's manual, MIDI data
format). Byte positions are those of the manual's tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from timbrel.errors import DataError

VOICES_PER_BANK = 32
PACKED_BYTES = 128
VOICE_BYTES = 155
BANK_FILE_BYTES = 4104
VOICE_FILE_BYTES = 163
_BANK_HEAD = bytes((0xF0, 0x43, 0x00, 0x09, 0x20, 0x00))
_VOICE_HEAD = bytes((0xF0, 0x43, 0x00, 0x00, 0x01, 0x1B))
Four = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One sine operator. Rates and levels 0-99; ``detune`` 0-14 with 7 in the middle."""

    rates: Four = (99, 99, 99, 99)
    levels: Four = (99, 99, 99, 0)
    break_point: int = 39  # 39 is C3 (MIDI 60 on the DX7's own count)
    left_depth: int = 0
    right_depth: int = 0
    left_curve: int = 0  # -linear, -exponential, +exponential, +linear
    right_curve: int = 0
    rate_scaling: int = 0  # 0-7
    amplitude_modulation: int = 0  # 0-3
    velocity: int = 0  # 0-7
    output: int = 0  # 0-99
    fixed: bool = False
    coarse: int = 1  # 0-31; 0 means one half
    fine: int = 0  # 0-99, hundredths of the coarse ratio
    detune: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A voice: operators 1 to 6 in that order, ``algorithm`` 1-32, ``name`` of at most 10 ASCII characters."""

    name: str
    algorithm: int
    operators: tuple[Operator, ...]
    feedback: int = 0  # 0-7
    key_sync: bool = True
    lfo_speed: int = 35
    lfo_delay: int = 0
    lfo_pitch_depth: int = 0
    lfo_amplitude_depth: int = 0
    lfo_sync: bool = True
    lfo_wave: int = 4  # triangle, saw down, saw up, square, sine, sample and hold
    pitch_sensitivity: int = 0  # 0-7
    pitch_rates: Four = (99, 99, 99, 99)
    pitch_levels: Four = (50, 50, 50, 50)
    transpose: int = 24  # 0-48; 24 is neutral

    def __post_init__(self) -> None:
        if len(self.operators) != 6:
            raise DataError(f"a DX7 voice has 6 operators, {self.name!r} has {len(self.operators)}")
        unpacked = to_unpacked(self)
        for position, (value, top) in enumerate(zip(unpacked, _LIMITS, strict=True)):
            if value > top:
                raise DataError(
                    f"voice {self.name!r}: byte {position} is {value}, its largest value is {top}"
                )


def _limits() -> tuple[int, ...]:
    operator = (99,) * 11 + (3, 3, 7, 3, 7, 99, 1, 31, 99, 14)
    shared = (99,) * 8 + (31, 7, 1, 99, 99, 99, 99, 1, 5, 7, 48)
    return operator * 6 + shared + (127,) * 10


_LIMITS = _limits()


def to_unpacked(voice: Voice) -> bytes:
    """155 bytes ("VCED")."""
    out = bytearray()
    try:
        for op in reversed(voice.operators):
            out += bytes(op.rates) + bytes(op.levels)
            out += bytes((op.break_point, op.left_depth, op.right_depth, op.left_curve, op.right_curve))
            out += bytes((op.rate_scaling, op.amplitude_modulation, op.velocity, op.output))
            out += bytes((op.fixed, op.coarse, op.fine, op.detune))
        out += bytes(voice.pitch_rates) + bytes(voice.pitch_levels)
        out += bytes((voice.algorithm - 1, voice.feedback, voice.key_sync))
        out += bytes((voice.lfo_speed, voice.lfo_delay, voice.lfo_pitch_depth, voice.lfo_amplitude_depth))
        out += bytes((voice.lfo_sync, voice.lfo_wave, voice.pitch_sensitivity, voice.transpose))
        out += voice.name.encode("ascii").ljust(10)
    except (ValueError, UnicodeEncodeError) as error:
        raise DataError(f"voice {voice.name!r} holds a value that no DX7 byte can carry ({error})") from error
    if len(out) != VOICE_BYTES:
        raise DataError(f"voice {voice.name!r}: the name may have 10 characters, rates and levels 4 each")
    return bytes(out)


def from_unpacked(data: bytes) -> Voice:
    """Voice of 155 bytes; values beyond a parameter's range are set to its largest value."""
    if len(data) < VOICE_BYTES:
        raise DataError(f"an unpacked DX7 voice has {VOICE_BYTES} bytes, got {len(data)}")
    data = bytes(min(value & 0x7F, top) for value, top in zip(data, _LIMITS, strict=False))
    operators = []
    for base in range(105, -1, -21):
        (rs, ams, kvs, level, mode, coarse, fine, detune) = data[base + 13 : base + 21]
        operators.append(
            Operator(
                rates=_four(data, base),
                levels=_four(data, base + 4),
                break_point=data[base + 8],
                left_depth=data[base + 9],
                right_depth=data[base + 10],
                left_curve=data[base + 11],
                right_curve=data[base + 12],
                rate_scaling=rs,
                amplitude_modulation=ams,
                velocity=kvs,
                output=level,
                fixed=bool(mode),
                coarse=coarse,
                fine=fine,
                detune=detune,
            )
        )
    return Voice(
        name=data[145:155].decode("ascii"),
        algorithm=data[134] + 1,
        operators=tuple(operators),
        feedback=data[135],
        key_sync=bool(data[136]),
        lfo_speed=data[137],
        lfo_delay=data[138],
        lfo_pitch_depth=data[139],
        lfo_amplitude_depth=data[140],
        lfo_sync=bool(data[141]),
        lfo_wave=data[142],
        pitch_sensitivity=data[143],
        pitch_rates=_four(data, 126),
        pitch_levels=_four(data, 130),
        transpose=data[144],
    )


def _four(data: bytes, start: int) -> Four:
    return (data[start], data[start + 1], data[start + 2], data[start + 3])


def to_packed(voice: Voice) -> bytes:
    """128 bytes, as in a bank."""
    raw = to_unpacked(voice)
    out = bytearray()
    for base in range(0, 126, 21):
        lc, rc, rs, ams, kvs, level, mode, coarse, fine, detune = raw[base + 11 : base + 21]
        out += raw[base : base + 11]
        out += bytes((rc << 2 | lc, detune << 3 | rs, kvs << 2 | ams, level, coarse << 1 | mode, fine))
    out += raw[126:135]
    feedback, key_sync = raw[135:137]
    out.append(key_sync << 3 | feedback)
    out += raw[137:141]
    lfo_sync, wave, sensitivity = raw[141:144]
    out.append(sensitivity << 4 | wave << 1 | lfo_sync)
    out += raw[144:155]
    return bytes(out)


def from_packed(data: bytes) -> Voice:
    """Voice of 128 bytes; values beyond a parameter's range are set to its largest value."""
    if len(data) != PACKED_BYTES:
        raise DataError(f"a packed DX7 voice has {PACKED_BYTES} bytes, got {len(data)}")
    data = bytes(value & 0x7F for value in data)
    out = bytearray()
    for base in range(0, 102, 17):
        curves, tuning, touch, level, frequency, fine = data[base + 11 : base + 17]
        out += data[base : base + 11]
        out += bytes((curves & 3, curves >> 2 & 3, tuning & 7, touch & 3, touch >> 2 & 7, level))
        out += bytes((frequency & 1, frequency >> 1 & 31, fine, tuning >> 3))
    out += data[102:110] + bytes((data[110] & 31, data[111] & 7, data[111] >> 3 & 1)) + data[112:116]
    out += bytes((data[116] & 1, data[116] >> 1 & 7, data[116] >> 4 & 7)) + data[117:128]
    return from_unpacked(bytes(out))


def checksum(data: bytes) -> int:
    """The DX7's checksum of a dump's data bytes, 0-127."""
    return -sum(data) & 0x7F


def write_bank(voices: Sequence[Voice]) -> bytes:
    """A bank file of 32 voices, 4,104 bytes; a shorter list is filled up with silent INIT voices."""
    if not 0 < len(voices) <= VOICES_PER_BANK:
        raise DataError(f"a DX7 bank holds 1 to {VOICES_PER_BANK} voices, got {len(voices)}")
    filler = Voice(name="INIT VOICE", algorithm=1, operators=(Operator(),) * 6)
    data = b"".join(to_packed(voice) for voice in [*voices, *[filler] * (VOICES_PER_BANK - len(voices))])
    return _BANK_HEAD + data + bytes((checksum(data), 0xF7))


def write_voice(voice: Voice) -> bytes:
    """A single-voice dump, 163 bytes: what a DX7 and its plug-ins take as one patch."""
    data = to_unpacked(voice)
    return _VOICE_HEAD + data + bytes((checksum(data), 0xF7))


@dataclass(frozen=True, slots=True, kw_only=True)
class BankContents:
    """Voices of a file, and how many of its dumps carried a wrong checksum (still readable, worth telling)."""

    voices: tuple[Voice, ...]
    wrong_checksums: int = field(default=0)


def read_sysex(data: bytes, *, origin: str = "sysex data") -> BankContents:
    """Every DX7 voice in a .syx file: banks, single voices, several dumps in a row, or 4,096 bare bytes.

    Raises DataError when there is none. ``origin`` names the file in the message.
    """
    if len(data) == VOICES_PER_BANK * PACKED_BYTES and data[0] != 0xF0:
        return BankContents(voices=_split_bank(data))
    voices: list[Voice] = []
    wrong = 0
    start = data.find(0xF0)
    while start >= 0:
        head = data[start : start + 6]
        # The third byte carries the MIDI channel in its low nibble.
        kind = (head[:2] == b"\xf0\x43" and len(head) == 6 and head[2] & 0xF0 == 0) and head[3:6]
        if kind == b"\x09\x20\x00" and len(data) >= start + BANK_FILE_BYTES - 2:
            body = data[start + 6 : start + 6 + VOICES_PER_BANK * PACKED_BYTES]
            voices += _split_bank(body)
        elif kind == b"\x00\x01\x1b" and len(data) >= start + VOICE_FILE_BYTES - 2:
            body = data[start + 6 : start + 6 + VOICE_BYTES]
            voices.append(from_unpacked(body))
        else:
            start = data.find(0xF0, start + 1)
            continue
        end = start + 6 + len(body)
        wrong += data[end : end + 1] != bytes((checksum(body),))
        start = data.find(0xF0, end)
    if not voices:
        raise DataError(f"{origin} holds no DX7 bank (4,104 bytes) and no DX7 voice (163 bytes)")
    return BankContents(voices=tuple(voices), wrong_checksums=wrong)


def _split_bank(body: bytes) -> tuple[Voice, ...]:
    return tuple(from_packed(body[at : at + PACKED_BYTES]) for at in range(0, len(body), PACKED_BYTES))


def read_sysex_file(path: Path) -> BankContents:
    """As :func:`read_sysex`, from a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return read_sysex(data, origin=path.name)
