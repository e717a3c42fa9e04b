// PCM in and out: what the browser decoded becomes a WAV that the service reads.

/** What the service's notes and previews have, in Hz. */
export const SERVICE_RATE = 24_000;
const RECORDING_RATE = 48_000;

/** Decode anything that the browser knows; unlike an AudioContext, this needs no gesture. */
export function decode(data: ArrayBuffer, rate = RECORDING_RATE): Promise<AudioBuffer> {
  return new OfflineAudioContext(1, 1, rate).decodeAudioData(data);
}

/** The channels' mean, float32 [samples]. */
export function mono(buffer: AudioBuffer): Float32Array {
  const mean = buffer.getChannelData(0).slice();
  for (let channel = 1; channel < buffer.numberOfChannels; channel++) {
    const data = buffer.getChannelData(channel);
    for (let i = 0; i < mean.length; i++) mean[i]! += data[i]!;
  }
  if (buffer.numberOfChannels > 1) for (let i = 0; i < mean.length; i++) mean[i]! /= buffer.numberOfChannels;
  return mean;
}

/** A 16-bit mono WAV of the buffer. */
export function wav(buffer: AudioBuffer): Blob {
  const samples = mono(buffer);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at: number, chars: string) => [...chars].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // mono
  view.setUint32(24, buffer.sampleRate, true);
  view.setUint32(28, 2 * buffer.sampleRate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) =>
    view.setInt16(44 + 2 * i, Math.round(32_767 * Math.max(-1, Math.min(1, sample))), true),
  );
  return new Blob([view], { type: "audio/wav" });
}
