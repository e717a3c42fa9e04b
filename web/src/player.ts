// Sound. A place of the map sounds in up to three steps, each fading into the next:
//
//   a library patch nearby (if it is at hand, and the service takes longer than PATIENCE)
//     → a short note of the place (some 50 ms of computing)
//       → the whole note
//
// What was computed once is kept, so a place touched again sounds at once.

import { bytes, synthesize, type Note, type Patch } from "./api";
import { decode, SERVICE_RATE } from "./wav";

const SHORT_SECONDS = 0.6;
const FULL_SECONDS = 3.5;
const PATIENCE_MS = 80;
const FADE_SECONDS = 0.06;
const RELEASE_SECONDS = 0.35;
const LEAST_MS = 350;
const KEPT = 120;

let context: AudioContext | undefined;

/** The context; first asked for within a gesture, else it stays silent. */
function running(): AudioContext {
  context ??= new AudioContext({ latencyHint: "interactive" });
  if (context.state !== "running") void context.resume();
  return context;
}

/** One sounding thing, whose source may be exchanged while it sounds. */
class Voice {
  /** When it first sounded, in the context's seconds; undefined before. */
  private began: number | undefined;
  private current: { source: AudioBufferSourceNode; gain: GainNode } | undefined;
  private releasing = false;
  onend: (() => void) | undefined;

  constructor(
    private readonly context: AudioContext,
    private readonly level = 1,
  ) {}

  get hasSounded(): boolean {
    return this.began !== undefined;
  }

  /** Go on with this buffer, from as far as the voice has come. */
  play(buffer: AudioBuffer, { rate = 1, level = this.level } = {}): void {
    if (this.releasing) return;
    const now = this.context.currentTime;
    this.began ??= now;
    const offset = now - this.began;
    if (offset >= buffer.duration) return;
    const source = new AudioBufferSourceNode(this.context, { buffer, playbackRate: rate });
    const gain = new GainNode(this.context, { gain: offset ? 0 : level });
    source.connect(gain).connect(this.context.destination);
    if (offset) gain.gain.setValueAtTime(0, now).linearRampToValueAtTime(level, now + FADE_SECONDS);
    if (this.current) this.fade(this.current, FADE_SECONDS);
    source.start(now, offset * rate);
    const mine = { source, gain };
    source.onended = () => {
      if (this.current === mine) {
        this.current = undefined;
        this.onend?.();
      }
    };
    this.current = mine;
  }

  stop(seconds = FADE_SECONDS): void {
    this.releasing = true;
    if (this.current) this.fade(this.current, seconds);
    else this.onend?.();
  }

  private fade(sounding: { source: AudioBufferSourceNode; gain: GainNode }, seconds: number): void {
    const now = this.context.currentTime;
    sounding.gain.gain.cancelScheduledValues(now);
    sounding.gain.gain.setValueAtTime(sounding.gain.gain.value, now);
    sounding.gain.gain.linearRampToValueAtTime(0, now + seconds);
    sounding.source.stop(now + seconds);
  }
}

/** What is kept, by key; the least recently used goes first. */
class Kept<T> {
  private readonly entries = new Map<string, T>();
  constructor(private readonly most: number) {}
  get(key: string): T | undefined {
    const value = this.entries.get(key);
    if (value !== undefined) {
      this.entries.delete(key);
      this.entries.set(key, value);
    }
    return value;
  }
  set(key: string, value: T): void {
    this.entries.set(key, value);
    if (this.entries.size > this.most) this.entries.delete(this.entries.keys().next().value!);
  }
  delete(key: string): void {
    this.entries.delete(key);
  }
}

const notes = new Kept<AudioBuffer>(KEPT);
const previews = new Kept<{ coming: Promise<AudioBuffer>; buffer?: AudioBuffer }>(KEPT);

function keyOf(note: Note): string {
  return [note.x.toFixed(3), note.y.toFixed(3), note.pitch, note.velocity, note.seconds].join(" ");
}

async function noteBuffer(note: Note, signal: AbortSignal): Promise<AudioBuffer> {
  const kept = notes.get(keyOf(note));
  if (kept) return kept;
  const buffer = await decode(await synthesize(note, signal), SERVICE_RATE);
  notes.set(keyOf(note), buffer);
  return buffer;
}

/** A patch's preview, fetched and decoded once. */
export function preview(patch: { patch_id: string; links: { preview: string } }): Promise<AudioBuffer> {
  const kept = previews.get(patch.patch_id);
  if (kept) return kept.coming;
  const entry: { coming: Promise<AudioBuffer>; buffer?: AudioBuffer } = {
    coming: bytes(patch.links.preview).then((data) => decode(data, SERVICE_RATE)),
  };
  previews.set(patch.patch_id, entry);
  entry.coming.then(
    (buffer) => (entry.buffer = buffer),
    () => previews.delete(patch.patch_id), // the next one who wants it asks again
  );
  return entry.coming;
}

/** The whole note of a place, as a buffer. */
export function placeNote(touch: Touch): Promise<AudioBuffer> {
  return noteBuffer({ ...touch, seconds: FULL_SECONDS }, new AbortController().signal);
}

export interface Touch {
  x: number;
  y: number;
  pitch: number;
  velocity: number;
}

/** The MIDI pitch of a patch's preview: that of its render nearest to C4. */
function previewPitch(patch: Patch): number {
  return patch.pitches.reduce((a, b) => (Math.abs(b - 60) < Math.abs(a - 60) ? b : a), patch.pitches[0] ?? 60);
}

export interface Playing {
  /** Let the note ring out. */
  release(): void;
  /** Ask for the whole note, where only the short one was. */
  complete(): void;
  /** Resolves when the first sound is under way, rejects with the service's error. */
  started: Promise<void>;
}

const VOICES = new Map<string, { voice: Voice; stop: AbortController }>();

/** Fade out whatever sounds under this name, and drop what was asked for it. */
export function hush(name: string): void {
  const former = VOICES.get(name);
  if (!former) return;
  VOICES.delete(name);
  former.stop.abort();
  former.voice.stop();
}

export function hushAll(): void {
  for (const name of [...VOICES.keys()]) hush(name);
}

/**
 * Play a place of the map. A new note under the same `name` takes the place of the former.
 * `whole: false` plays the short note only, until `complete()`.
 */
export function play(name: string, touch: Touch, { nearby, whole = true }: { nearby?: Patch; whole?: boolean }): Playing {
  const touched = performance.now();
  hush(name);
  const context = running();
  const voice = new Voice(context);
  const stop = new AbortController();
  VOICES.set(name, { voice, stop });
  const short: Note = { ...touch, seconds: SHORT_SECONDS };
  const full: Note = { ...touch, seconds: FULL_SECONDS };

  const sound = (buffer: AudioBuffer, step: string, options = {}) => {
    if (stop.signal.aborted) return;
    const first = !voice.hasSounded;
    voice.play(buffer, options);
    if (first && voice.hasSounded) performance.measure("timbrel:first-sound", { start: touched, detail: { step } });
  };

  let completed = false;
  const complete = async (): Promise<void> => {
    if (completed) return;
    completed = true;
    sound(await noteBuffer(full, stop.signal), "full");
  };

  const patience = setTimeout(() => {
    const buffer = nearby && previews.get(nearby.patch_id)?.buffer;
    if (buffer && !voice.hasSounded) {
      const rate = 2 ** ((touch.pitch - previewPitch(nearby)) / 12);
      if (rate >= 0.5 && rate <= 2) sound(buffer, "nearby", { rate, level: 0.5 });
    }
  }, PATIENCE_MS);

  const begin = async (): Promise<void> => {
    try {
      const kept = notes.get(keyOf(full));
      if (kept) {
        completed = true;
        sound(kept, "kept");
        return;
      }
      sound(await noteBuffer(short, stop.signal), "short");
      if (whole) await complete();
    } finally {
      clearTimeout(patience);
    }
  };
  const started = begin().catch((error: unknown) => {
    if (!stop.signal.aborted) throw error;
  });
  return {
    started,
    release: () => {
      // However short the key was struck, it is heard.
      const letGo = () => {
        const left = LEAST_MS - (performance.now() - touched);
        setTimeout(() => voice.stop(RELEASE_SECONDS), Math.max(0, left));
      };
      started.then(letGo, () => undefined);
    },
    complete: () => void complete().catch(() => undefined),
  };
}

/** Play a buffer from its start. Resolves when it ends or is replaced. */
export function playBuffer(name: string, buffer: AudioBuffer, level = 1): Promise<void> {
  hush(name);
  const voice = new Voice(running(), level);
  VOICES.set(name, { voice, stop: new AbortController() });
  const ended = new Promise<void>((resolve) => (voice.onend = resolve));
  voice.play(buffer);
  return ended;
}

/** Two sounds that run side by side, one of them heard; equally loud. */
export function compare(a: AudioBuffer, b: AudioBuffer, levels: [number, number]): { hear(which: 0 | 1): void; stop(): void } {
  hushAll();
  const context = running();
  const length = Math.max(a.duration, b.duration) + 0.3;
  const gains = [a, b].map((buffer) => {
    const padded = context.createBuffer(1, Math.ceil(length * buffer.sampleRate), buffer.sampleRate);
    padded.copyToChannel(buffer.getChannelData(0), 0);
    const source = new AudioBufferSourceNode(context, { buffer: padded, loop: true });
    const gain = new GainNode(context, { gain: 0 });
    source.connect(gain).connect(context.destination);
    source.start();
    return { source, gain };
  });
  return {
    hear: (which) =>
      gains.forEach(({ gain }, i) => gain.gain.setTargetAtTime(i === which ? levels[i]! : 0, context.currentTime, 0.015)),
    stop: () => gains.forEach(({ source }) => source.stop()),
  };
}

/** Notes along a line, one after another; each is computed while those before it sound. */
export async function playPath(
  touches: Touch[],
  { seconds, signal, onStep }: { seconds: number; signal: AbortSignal; onStep: (step: number) => void },
): Promise<void> {
  hushAll();
  const context = running();
  const notesOfPath = touches.map((touch) => ({ ...touch, seconds: Math.round(100 * (seconds + 0.3)) / 100 }));
  let coming: Promise<AudioBuffer> | undefined = noteBuffer(notesOfPath[0]!, signal);
  let at = 0;
  for (let step = 0; step < notesOfPath.length; step++) {
    const buffer: AudioBuffer = await coming!;
    signal.throwIfAborted();
    const next = notesOfPath[step + 1];
    coming = next && noteBuffer(next, signal);
    coming?.catch(() => undefined); // it is awaited in the next round, unless that is aborted
    at = Math.max(at, context.currentTime);
    const voice = new Voice(context);
    await pause(at - context.currentTime, signal);
    onStep(step);
    VOICES.set(`path ${step}`, { voice, stop: new AbortController() });
    voice.onend = () => VOICES.delete(`path ${step}`);
    voice.play(buffer);
    at = context.currentTime + seconds;
    if (step === notesOfPath.length - 1) await pause(seconds, signal);
  }
}

function pause(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * Math.max(0, seconds));
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}
