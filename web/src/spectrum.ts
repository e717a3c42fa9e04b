// What can be measured of a sound in the browser: its spectrogram, how bright and how loud it is, and the course of its
// level.

import FFT from "fft.js";
import { mono } from "./wav";

const SIZE = 2048;
const FLOOR_DB = -80;
const LOWEST_HZ = 50;
const HIGHEST_HZ = 12_000;
const WINDOW = Float64Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));

/** Magnitudes of `columns` frames spread over the samples: [columns][SIZE / 2]. */
function frames(samples: Float32Array, columns: number): Float32Array[] {
  const fft = new FFT(SIZE);
  const spectrum = fft.createComplexArray();
  const frame = new Float64Array(SIZE);
  return Array.from({ length: columns }, (_, column) => {
    const start = Math.round((column / Math.max(1, columns - 1)) * samples.length - SIZE / 2);
    for (let i = 0; i < SIZE; i++) frame[i] = WINDOW[i]! * (samples[start + i] ?? 0);
    fft.realTransform(spectrum, frame);
    return Float32Array.from({ length: SIZE / 2 }, (_, bin) => Math.hypot(spectrum[2 * bin]!, spectrum[2 * bin + 1]!));
  });
}

/** A spectrogram on a logarithmic frequency axis: values 0 to 1, [columns][rows], the lowest frequency first. */
export function spectrogram(buffer: AudioBuffer, columns: number, rows: number): Float32Array[] {
  const magnitudes = frames(mono(buffer), columns);
  const peak = Math.max(1e-9, ...magnitudes.map((frame) => frame.reduce((a, b) => Math.max(a, b), 0)));
  const binHz = buffer.sampleRate / SIZE;
  const edges = Array.from({ length: rows + 1 }, (_, row) => LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** (row / rows));
  return magnitudes.map((frame) =>
    Float32Array.from({ length: rows }, (_, row) => {
      const from = Math.round(edges[row]! / binHz);
      const to = Math.max(from + 1, Math.round(edges[row + 1]! / binHz));
      let most = 0;
      for (let bin = from; bin < to && bin < frame.length; bin++) most = Math.max(most, frame[bin]!);
      return Math.max(0, 1 - (20 * Math.log10(most / peak + 1e-9)) / FLOOR_DB);
    }),
  );
}

export interface Aspects {
  /** Spectral centroid of the whole sound, in octaves above 1 Hz. */
  brightness: number;
  /** Level from the onset on, in dB below its peak, every 10 ms. */
  envelope: number[];
  /** Of its loudest 400 ms, in LUFS (ITU-R BS.1770), were its highest sample at full scale. How far a recording or a
   * preview was turned up says nothing of the instrument; how loud it is for its peak does. */
  loudness: number;
}

const STEP_SECONDS = 0.01;
const LONGEST_SECONDS = 2.2; // a preview fades out after that
const BRIGHTEST_HZ = 11_000;
const ENVELOPE_FLOOR_DB = -48;
const FRAMES = 60;
const MOMENT_FRAMES = Math.round((0.4 / LONGEST_SECONDS) * FRAMES);
const WINDOW_POWER = WINDOW.reduce((sum, each) => sum + each ** 2, 0);

/** How much a frequency weighs in loudness, as power: BS.1770's shelf and high-pass as their analogue prototypes. */
function weight(hz: number): number {
  const [shelf, pass] = [hz / 1682, hz / 38.1];
  const gain = 10 ** (4 / 20);
  const resonance = (at: number, q: number) => (1 - at ** 2) ** 2 + (at / q) ** 2;
  const raised = (1 - gain * shelf ** 2) ** 2 + (Math.sqrt(gain) * shelf) ** 2 / 0.5;
  return (raised / resonance(shelf, Math.SQRT1_2)) * (pass ** 4 / resonance(pass, 0.5));
}

export function aspects(buffer: AudioBuffer): Aspects {
  const samples = mono(buffer);
  const step = Math.round(STEP_SECONDS * buffer.sampleRate);
  const power = Array.from({ length: Math.floor(samples.length / step) }, (_, i) => {
    let sum = 0;
    for (let n = i * step; n < (i + 1) * step; n++) sum += samples[n]! ** 2;
    return sum / step;
  });
  const peak = Math.max(1e-12, ...power);
  const levels = power.map((each) => Math.max(ENVELOPE_FLOOR_DB, 10 * Math.log10(each / peak + 1e-12)));
  const onset = Math.max(0, levels.findIndex((level) => level > -40));
  const count = Math.round(LONGEST_SECONDS / STEP_SECONDS);
  const sounding = samples.subarray(onset * step, (onset + count) * step);
  const binHz = buffer.sampleRate / SIZE;
  // A preview ends at 12 kHz: what a recording has above that must not count.
  const bins = Math.min(SIZE / 2, Math.ceil(BRIGHTEST_HZ / binHz));
  const weights = Float64Array.from({ length: bins }, (_, bin) => (weight(bin * binHz) * 2) / (SIZE * WINDOW_POWER));
  let centre = 0;
  let total = 1e-12;
  // A short sound fills fewer moments, not longer ones.
  const columns = Math.max(2, Math.round((sounding.length / (count * step)) * FRAMES));
  const heard = frames(sounding, columns).map((frame) => {
    let loud = 0;
    for (let bin = 0; bin < bins; bin++) {
      const power = frame[bin]! ** 2;
      centre += power * bin * binHz;
      total += power;
      loud += power * weights[bin]!;
    }
    return loud;
  });
  return {
    brightness: Math.log2(Math.max(1, centre / total)),
    envelope: levels.slice(onset, onset + count),
    loudness: 10 * Math.log10(loudest(heard) + 1e-12) - 0.691 - 20 * Math.log10(highest(sounding)),
  };
}

/** The greatest mean over a moment. */
function loudest(powers: number[]): number {
  let sum = 0;
  let most = 0;
  powers.forEach((power, i) => {
    sum += power - (powers[i - MOMENT_FRAMES] ?? 0);
    most = Math.max(most, sum);
  });
  return most / MOMENT_FRAMES;
}

function highest(samples: Float32Array): number {
  return samples.reduce((most, each) => Math.max(most, Math.abs(each)), 1e-6);
}

/** In octaves. */
export function brightnessDistance(a: Aspects, b: Aspects): number {
  return Math.abs(a.brightness - b.brightness);
}

/** In dB. */
export function loudnessDistance(a: Aspects, b: Aspects): number {
  return Math.abs(a.loudness - b.loudness);
}

/** Mean difference in dB, over as long as both last. */
export function envelopeDistance(a: Aspects, b: Aspects): number {
  const length = Math.min(a.envelope.length, b.envelope.length);
  if (!length) return 0;
  let sum = 0;
  for (let i = 0; i < length; i++) sum += Math.abs(a.envelope[i]! - b.envelope[i]!);
  return sum / length;
}

/** Root mean square of the loudest half second, to play two sounds equally loud. */
export function level(buffer: AudioBuffer): number {
  const samples = mono(buffer);
  const length = Math.min(samples.length, Math.round(buffer.sampleRate / 2));
  let sum = 0;
  for (let i = 0; i < length; i++) sum += samples[i]! ** 2;
  let most = sum;
  for (let i = length; i < samples.length; i++) {
    sum += samples[i]! ** 2 - samples[i - length]! ** 2;
    most = Math.max(most, sum);
  }
  return Math.sqrt(most / Math.max(1, length));
}
