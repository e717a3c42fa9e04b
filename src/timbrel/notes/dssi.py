"""A host for DSSI synthesiser plugins (LADSPA's ports plus MIDI events), through ctypes.

A plugin is native code of its own licence: load it in a process that does nothing else (``render.map_jobs``). The
structures are those of ``ladspa.h`` 1.1, ``dssi.h`` 1.0 and ALSA's ``seq_event.h``.
"""

from __future__ import annotations

import ctypes
import math
import time
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_float, c_int, c_uint8, c_uint32, c_ulong
from ctypes import c_void_p as pointer
from pathlib import Path

import numpy as np
import numpy.typing as npt

from timbrel.errors import DataError

BLOCK = 64
NOTE_ON, NOTE_OFF = 6, 7  # SND_SEQ_EVENT_*
IS_INPUT, IS_CONTROL = 1, 4  # LADSPA_PORT_*; an output is 2, audio is 8
HINT_BELOW, HINT_ABOVE, HINT_SAMPLE_RATE, HINT_LOGARITHMIC, HINT_DEFAULT = 0x1, 0x2, 0x8, 0x10, 0x3C0


class _Hint(Structure):
    _fields_ = (("kind", c_int), ("low", c_float), ("high", c_float))


class _Ladspa(Structure):
    _fields_ = (
        ("unique_id", c_ulong),
        ("label", c_char_p),
        ("properties", c_int),
        ("name", c_char_p),
        ("maker", c_char_p),
        ("copyright", c_char_p),
        ("port_count", c_ulong),
        ("port_kinds", POINTER(c_int)),
        ("port_names", POINTER(c_char_p)),
        ("port_hints", POINTER(_Hint)),
        ("implementation", pointer),
        ("instantiate", CFUNCTYPE(pointer, pointer, c_ulong)),
        ("connect_port", CFUNCTYPE(None, pointer, c_ulong, POINTER(c_float))),
        ("activate", CFUNCTYPE(None, pointer)),
        ("run", pointer),
        ("run_adding", pointer),
        ("set_run_adding_gain", pointer),
        ("deactivate", CFUNCTYPE(None, pointer)),
        ("cleanup", CFUNCTYPE(None, pointer)),
    )


class _Program(Structure):
    _fields_ = (("bank", c_ulong), ("program", c_ulong), ("name", c_char_p))


class _Event(Structure):
    """``snd_seq_event_t`` of a note: ``frame`` is the tick, its place within the block."""

    _fields_ = (
        ("type", c_uint8),
        ("flags", c_uint8),
        ("tag", c_uint8),
        ("queue", c_uint8),
        ("frame", c_uint32),
        ("unused", c_uint32),
        ("addresses", c_uint32),
        ("channel", c_uint8),
        ("note", c_uint8),
        ("velocity", c_uint8),
        ("off_velocity", c_uint8),
        ("duration", c_uint32),
        ("rest", c_uint32),
    )


class _Dssi(Structure):
    _fields_ = (
        ("api_version", c_int),
        ("ladspa", POINTER(_Ladspa)),
        ("configure", pointer),
        ("get_program", CFUNCTYPE(POINTER(_Program), pointer, c_ulong)),
        ("select_program", CFUNCTYPE(None, pointer, c_ulong, c_ulong)),
        ("get_midi_controller_for_port", pointer),
        ("run_synth", CFUNCTYPE(None, pointer, c_ulong, POINTER(_Event), c_ulong)),
        ("run_synth_adding", pointer),
        ("run_multiple_synths", pointer),
        ("run_multiple_synths_adding", pointer),
    )


class DssiSynth:
    """One instance of the plugin in the library ``path``: its controls, its programs, and notes played on it."""

    def __init__(self, path: Path, sample_rate: int = 48_000) -> None:
        """Raises DataError when ``path`` is no DSSI plugin that this machine can load."""
        try:
            library = ctypes.CDLL(str(path))
            describe = library.dssi_descriptor
        except (OSError, AttributeError) as error:
            raise DataError(f"{path} is not a DSSI plugin that can be loaded: {error}") from error
        describe.restype = POINTER(_Dssi)
        describe.argtypes = (c_ulong,)
        self.sample_rate = sample_rate
        self._dssi = describe(0).contents
        self._ladspa = self._dssi.ladspa.contents
        self._handle = self._ladspa.instantiate(ctypes.addressof(self._ladspa), sample_rate)
        count = int(self._ladspa.port_count)
        self._values = (c_float * count)()
        self._outputs: list[npt.NDArray[np.float32]] = []
        self.controls: dict[str, int] = {}
        for port in range(count):
            kind = self._ladspa.port_kinds[port]
            where = ctypes.cast(
                ctypes.addressof(self._values) + port * ctypes.sizeof(c_float), POINTER(c_float)
            )
            if not kind & IS_CONTROL:
                block = np.zeros(BLOCK, dtype=np.float32)
                where = block.ctypes.data_as(POINTER(c_float))
                if not kind & IS_INPUT:
                    self._outputs.append(block)
            elif kind & IS_INPUT:
                self.controls[self._ladspa.port_names[port].decode()] = port
                self._values[port] = _default(self._ladspa.port_hints[port], sample_rate)
            self._ladspa.connect_port(self._handle, port, where)
        if self._ladspa.activate:
            self._ladspa.activate(self._handle)

    def close(self) -> None:
        """Free the instance. Not to be used afterwards."""
        if self._ladspa.deactivate:
            self._ladspa.deactivate(self._handle)
        self._ladspa.cleanup(self._handle)

    def programs(self) -> list[tuple[int, int, str]]:
        """(bank, program, name) of every program that the plugin brings along."""
        found: list[tuple[int, int, str]] = []
        if not self._dssi.get_program:
            return []
        while program := self._dssi.get_program(self._handle, len(found)):
            found.append((program.contents.bank, program.contents.program, program.contents.name.decode()))
        return found

    def select(self, bank: int, program: int) -> None:
        """Load one of ``programs``; the plugin writes the control ports."""
        self._dssi.select_program(self._handle, bank, program)

    def set(self, name: str, value: float) -> None:
        """Write the control port ``name``, one of ``controls``."""
        self._values[self.controls[name]] = value

    def get(self, name: str) -> float:
        """The value at the control port ``name``."""
        return float(self._values[self.controls[name]])

    def play(self, *, key: int, velocity: int, held: float, seconds: float) -> npt.NDArray[np.float32]:
        """One note held for ``held`` seconds: float32 [seconds * sample_rate], the mean of the outputs."""
        blocks = math.ceil(seconds * self.sample_rate / BLOCK)
        release = round(held * self.sample_rate) // BLOCK
        sound = np.empty((blocks, BLOCK), dtype=np.float32)
        for index in range(blocks):
            kind = NOTE_ON if index == 0 else NOTE_OFF if index == release else None
            self._run(None if kind is None else _Event(type=kind, note=key, velocity=velocity))
            np.mean(self._outputs, axis=0, out=sound[index])
        return sound.reshape(-1)[: round(seconds * self.sample_rate)]

    def rest(self, seconds: float) -> None:
        """Let ``seconds`` of real time and of the plugin's time pass: some make their wave tables in a thread."""
        for _ in range(math.ceil(seconds / 0.02)):
            for _ in range(math.ceil(0.02 * self.sample_rate / BLOCK)):
                self._run(None)
            time.sleep(0.02)

    def _run(self, event: _Event | None) -> None:
        if event is None:
            self._dssi.run_synth(self._handle, BLOCK, None, 0)
        else:
            self._dssi.run_synth(self._handle, BLOCK, byref(event), 1)


def _default(hint: _Hint, sample_rate: int) -> float:
    """The value that a port's hint asks a host to start with (``ladspa.h``, LADSPA_HINT_DEFAULT_*)."""
    scale = sample_rate if hint.kind & HINT_SAMPLE_RATE else 1.0
    low, high = hint.low * scale, hint.high * scale
    wanted = hint.kind & HINT_DEFAULT
    fixed = {0x200: 0.0, 0x240: 1.0, 0x280: 100.0, 0x2C0: 440.0, 0x40: low, 0x140: high}
    if wanted in fixed:
        return fixed[wanted]
    share = {0x80: 0.25, 0xC0: 0.5, 0x100: 0.75}.get(wanted)
    if share is None:
        return 0.0
    if hint.kind & HINT_LOGARITHMIC and low > 0.0:
        return math.exp(math.log(low) * (1.0 - share) + math.log(high) * share)
    return low * (1.0 - share) + high * share
