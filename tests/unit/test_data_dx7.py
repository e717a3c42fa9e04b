"""DX7 voices and banks: the published layouts, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

from timbrel.errors import DataError
from timbrel.notes import dx7
from timbrel.notes.dx7 import Operator, Voice, checksum, from_packed, read_sysex, to_packed


def telling_voice() -> Voice:
    """A voice in which every field has a value of its own."""
    operators = tuple(
        Operator(
            rates=(90 + n, 80 + n, 70 + n, 60 + n),
            levels=(99, 50 + n, 40 + n, n),
            break_point=10 + n,
            left_depth=20 + n,
            right_depth=30 + n,
            left_curve=n % 4,
            right_curve=(n + 1) % 4,
            rate_scaling=n,
            amplitude_modulation=n % 4,
            velocity=7 - n,
            output=90 - n,
            fixed=n == 5,
            coarse=n * 5,
            fine=n * 9,
            detune=n + 3,
        )
        for n in range(1, 7)
    )
    return Voice(
        name="Telling 01",
        algorithm=22,
        operators=operators,
        feedback=6,
        key_sync=False,
        lfo_speed=41,
        lfo_delay=42,
        lfo_pitch_depth=43,
        lfo_amplitude_depth=44,
        lfo_sync=False,
        lfo_wave=3,
        pitch_sensitivity=5,
        pitch_rates=(11, 12, 13, 14),
        pitch_levels=(51, 52, 53, 54),
        transpose=12,
    )


def test_a_packed_voice_round_trips() -> None:
    voice = telling_voice()
    packed = to_packed(voice)
    assert len(packed) == 128
    assert from_packed(packed) == voice
    assert dx7.from_unpacked(dx7.to_unpacked(voice)) == voice


def test_packed_bytes_lie_where_the_manual_puts_them() -> None:
    packed = to_packed(telling_voice())
    # Operator 6 comes first: n = 6.
    assert list(packed[:8]) == [96, 86, 76, 66, 99, 56, 46, 6]
    assert packed[11] == 3 << 2 | 2  # right curve, left curve
    assert packed[12] == 9 << 3 | 6  # detune, rate scaling
    assert packed[13] == 1 << 2 | 2  # velocity, amplitude modulation
    assert list(packed[14:17]) == [84, 30 << 1, 54]
    assert packed[17 + 15] == 25 << 1 | 1  # operator 5 has a fixed frequency
    assert packed[110] == 21  # algorithm 22
    assert packed[111] == 6  # key sync off, feedback 6
    assert packed[116] == 5 << 4 | 3 << 1
    assert packed[117] == 12
    assert packed[118:] == b"Telling 01"


def test_every_byte_of_random_voices_survives() -> None:
    generator = np.random.default_rng(0)
    limits = np.array(dx7._LIMITS)
    for _ in range(200):
        raw = bytes(int(value) for value in generator.integers(0, limits + 1))
        voice = dx7.from_unpacked(raw)
        assert dx7.to_unpacked(voice) == raw
        assert dx7.to_unpacked(from_packed(to_packed(voice))) == raw


def test_a_bank_has_the_published_size_head_and_checksum() -> None:
    bank = dx7.write_bank([telling_voice()] * 3)
    assert len(bank) == 4104
    assert bank[:6] == bytes.fromhex("f04300092000")
    assert bank[-1] == 0xF7
    assert (sum(bank[6:-2]) + bank[-2]) % 128 == 0
    contents = read_sysex(bank)
    assert len(contents.voices) == 32
    assert contents.voices[2] == telling_voice()
    assert contents.voices[3].name == "INIT VOICE"
    assert contents.wrong_checksums == 0


def test_a_single_voice_dump() -> None:
    dump = dx7.write_voice(telling_voice())
    assert len(dump) == 163
    assert dump[:6] == bytes.fromhex("f0430000011b")
    assert (sum(dump[6:-2]) + dump[-2]) % 128 == 0
    assert read_sysex(dump).voices == (telling_voice(),)


def test_checksum_of_known_data() -> None:
    assert checksum(bytes([1, 2, 3])) == 122
    assert checksum(bytes(128)) == 0


def test_several_dumps_in_a_row_another_channel_and_a_wrong_checksum() -> None:
    bank = bytearray(dx7.write_bank([telling_voice()]))
    bank[2] = 0x05  # MIDI channel 6
    bank[-2] ^= 1
    contents = read_sysex(b"\xf0\x7e\x00\x06\x01\xf7" + bytes(bank) + dx7.write_voice(telling_voice()))
    assert len(contents.voices) == 33
    assert contents.wrong_checksums == 1


def test_bare_banks_without_a_head_are_read() -> None:
    bank = dx7.write_bank([telling_voice()])[6:-2]
    assert read_sysex(bank).voices[0] == telling_voice()


@pytest.mark.parametrize(
    "data", [b"", b"\xf0", b"not sysex at all", b"\xf0\x43\x00\x09\x20\x00" + bytes(100)]
)
def test_other_files_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(DataError, match=r"noise\.syx holds no DX7 bank"):
        read_sysex(data, origin="noise.syx")


def test_values_out_of_range() -> None:
    with pytest.raises(DataError, match="largest value is 99"):
        Voice(name="loud", algorithm=1, operators=(Operator(output=100),) + (Operator(),) * 5)
    with pytest.raises(DataError, match="6 operators"):
        Voice(name="few", algorithm=1, operators=(Operator(),))
    with pytest.raises(DataError, match="10 characters"):
        Voice(name="much too long", algorithm=1, operators=(Operator(),) * 6)
    with pytest.raises(DataError, match="no DX7 byte"):
        Voice(name="Flöte", algorithm=1, operators=(Operator(),) * 6)
    damaged = bytearray(to_packed(telling_voice()))
    damaged[14] = 127  # operator 6's output
    assert from_packed(bytes(damaged)).operators[5].output == 99
