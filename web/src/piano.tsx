// The keys: on the screen, on the computer's keyboard, and over Web MIDI.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { hush, type Playing } from "./player";
import { choose, key, library, say, sound, sounding } from "./state";
import { keyName } from "./words";

const BLACK = new Set([1, 3, 6, 8, 10]);
// By place on the keyboard, whatever is printed on the keys.
const CODES = "KeyA KeyW KeyS KeyE KeyD KeyF KeyT KeyG KeyY KeyH KeyU KeyJ KeyK KeyO KeyL KeyP Semicolon".split(" ");
const letters = signal(localStorage.getItem("timbrel-letters") !== "off");
const midiState = signal<"" | "asking" | "on" | "refused" | "none">("");

const held = new Map<string, Playing>();

function press(name: string, pitch: number, velocity = 100): void {
  const map = library.value?.map;
  if (!map || pitch < map.pitch_low || pitch > map.pitch_high) return;
  choose(pitch);
  hush("map");
  held.set(name, sound(`key ${pitch}`, pitch, { velocity }));
  sounding.value = new Set([...sounding.value, pitch]);
}

function release(name: string, pitch: number): void {
  held.get(name)?.release();
  held.delete(name);
  sounding.value = new Set([...sounding.value].filter((each) => each !== pitch));
}

/** The letters' octave: the pitch of the first. */
const octave = signal(60);

function shift(semitones: number): void {
  const { pitch_low: low = 48, pitch_high: high = 72 } = library.value?.map ?? {};
  const moved = octave.value + semitones;
  if (moved >= low && moved < high) octave.value = moved;
  say(`Letters from ${keyName(octave.value)}`);
}

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
}

function useLetters(): void {
  useEffect(() => {
    const down = new Map<string, number>();
    const onDown = (event: KeyboardEvent) => {
      const step = CODES.indexOf(event.code);
      const modified = event.ctrlKey || event.metaKey || event.altKey;
      if (!letters.value || event.repeat || modified || typing(event.target)) return;
      if (event.code === "KeyZ" || event.code === "KeyX") shift(event.code === "KeyZ" ? -12 : 12);
      if (step < 0) return;
      const pitch = octave.value + step;
      down.set(event.code, pitch);
      press(event.code, pitch);
    };
    const onUp = (event: KeyboardEvent) => {
      const pitch = down.get(event.code);
      if (pitch === undefined) return;
      down.delete(event.code);
      release(event.code, pitch);
    };
    const onBlur = () => {
      for (const [code, pitch] of down) release(code, pitch);
      down.clear();
    };
    addEventListener("keydown", onDown);
    addEventListener("keyup", onUp);
    addEventListener("blur", onBlur);
    return () => {
      removeEventListener("keydown", onDown);
      removeEventListener("keyup", onUp);
      removeEventListener("blur", onBlur);
    };
  }, []);
}

async function connectMidi(): Promise<void> {
  midiState.value = "asking";
  let access: MIDIAccess;
  try {
    access = await navigator.requestMIDIAccess();
  } catch {
    midiState.value = "refused";
    return;
  }
  const listen = () => {
    midiState.value = access.inputs.size ? "on" : "none";
    access.inputs.forEach((input) => (input.onmidimessage = onMidi));
  };
  access.onstatechange = listen;
  listen();
}

/** Note on and note off; velocities in steps of eight, so that notes can be kept. */
export function onMidi(event: { data: Uint8Array | null }): void {
  const [status = 0, pitch = 0, velocity = 0] = event.data ?? [];
  const kind = status & 0xf0;
  if (kind === 0x90 && velocity > 0) press(`midi ${pitch}`, pitch, Math.max(8, Math.min(127, 8 * Math.round(velocity / 8))));
  else if (kind === 0x80 || kind === 0x90) release(`midi ${pitch}`, pitch);
}

const MIDI_TEXT = {
  "": "Connect MIDI",
  asking: "Asking…",
  on: "MIDI connected",
  refused: "MIDI is blocked",
  none: "No MIDI device yet",
};

export function Piano() {
  useLetters();
  const keys = useRef<HTMLDivElement>(null);
  const { pitch_low: low = 48, pitch_high: high = 72 } = library.value?.map ?? {};
  const pitches = Array.from({ length: high - low + 1 }, (_, i) => low + i);
  const whites = pitches.filter((pitch) => !BLACK.has(pitch % 12));

  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (event.key === " " || event.key === "Enter") sound("map");
    else if (step) {
      const pitch = Math.max(low, Math.min(high, key.value + step));
      choose(pitch);
      sound("map");
      keys.current?.querySelector<HTMLElement>(`[data-pitch="${pitch}"]`)?.focus();
    } else return;
    event.preventDefault();
  };

  const keyAt = (event: PointerEvent): number | undefined => {
    const element = document.elementFromPoint(event.clientX, event.clientY)?.closest<HTMLElement>("[data-pitch]");
    return element ? Number(element.dataset["pitch"]) : undefined;
  };
  const pressed = useRef<number | undefined>(undefined);
  const pointer = {
    onPointerDown: (event: PointerEvent) => {
      const pitch = keyAt(event);
      if (event.button !== 0 || pitch === undefined) return;
      pressed.current = pitch;
      press("pointer", pitch);
    },
    onPointerMove: (event: PointerEvent) => {
      const pitch = keyAt(event);
      if (pressed.current === undefined || pitch === undefined || pitch === pressed.current) return;
      release("pointer", pressed.current);
      pressed.current = pitch;
      press("pointer", pitch);
    },
    onPointerUp: () => {
      if (pressed.current !== undefined) release("pointer", pressed.current);
      pressed.current = undefined;
    },
  };

  return (
    <section class="piano" aria-label="Keys">
      <div
        class="keys"
        ref={keys}
        role="radiogroup"
        aria-label="Key to play at"
        onKeyDown={onKeyDown}
        {...pointer}
        onPointerLeave={pointer.onPointerUp}
        onPointerCancel={pointer.onPointerUp}
      >
        {pitches.map((pitch) => {
          const black = BLACK.has(pitch % 12);
          const left = whites.filter((white) => white < pitch).length / whites.length;
          return (
            <div
              key={pitch}
              role="radio"
              aria-checked={key.value === pitch}
              aria-label={keyName(pitch)}
              tabindex={key.value === pitch ? 0 : -1}
              data-pitch={pitch}
              class={`${black ? "black" : "white"} ${sounding.value.has(pitch) ? "down" : ""}`}
              style={black ? { left: `${100 * left}%`, width: `${62 / whites.length}%` } : {}}
            >
              {pitch % 12 === 0 && <span aria-hidden="true">{keyName(pitch)}</span>}
            </div>
          );
        })}
      </div>
      <div class="under">
        <label class="check">
          <input
            type="checkbox"
            checked={letters.value}
            onChange={(event) => {
              letters.value = event.currentTarget.checked;
              localStorage.setItem("timbrel-letters", letters.value ? "on" : "off");
            }}
          />
          Letters play: <kbd>A</kbd>–<kbd>K</kbd>, octave <kbd>Z</kbd> <kbd>X</kbd>
        </label>
        {"requestMIDIAccess" in navigator && (
          <button class="plain" disabled={midiState.value === "on"} onClick={() => void connectMidi()}>
            {MIDI_TEXT[midiState.value]}
          </button>
        )}
      </div>
    </section>
  );
}
