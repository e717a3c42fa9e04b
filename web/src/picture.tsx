// A sound to look at: its waveform above its spectrogram.

import { useEffect, useRef } from "preact/hooks";
import { spectrogram } from "./spectrum";
import { dark } from "./theme";
import { mono } from "./wav";

const WAVE_SHARE = 0.3;

/** `seconds`: the time that the whole width stands for, so that two pictures can be compared. */
export function Picture({ buffer, seconds, label, caption }: { buffer: AudioBuffer; seconds: number; label: string; caption?: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const isDark = dark.value;
  useEffect(() => {
    const element = canvas.current!;
    let frame = 0;
    const observer = new ResizeObserver(() => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => paint(element, buffer, seconds));
    });
    observer.observe(element);
    return () => {
      cancelAnimationFrame(frame);
      observer.disconnect();
    };
  }, [buffer, seconds, isDark]);
  return (
    <figure class="picture">
      {caption && <figcaption aria-hidden="true">{caption}</figcaption>}
      <canvas ref={canvas} role="img" aria-label={`${label}: waveform and spectrogram, ${buffer.duration.toFixed(1)} seconds`} />
    </figure>
  );
}

function paint(canvas: HTMLCanvasElement, buffer: AudioBuffer, seconds: number): void {
  const box = canvas.getBoundingClientRect();
  const [width, height] = [Math.round(box.width * devicePixelRatio), Math.round(box.height * devicePixelRatio)];
  if (!width || !height) return;
  [canvas.width, canvas.height] = [width, height];
  const style = getComputedStyle(canvas);
  const context = canvas.getContext("2d")!;
  const used = Math.max(1, Math.round(width * Math.min(1, buffer.duration / seconds)));
  const waveHeight = Math.round(height * WAVE_SHARE);

  const samples = mono(buffer);
  const peak = samples.reduce((most, each) => Math.max(most, Math.abs(each)), 1e-6);
  context.fillStyle = style.getPropertyValue("--accent");
  for (let x = 0; x < used; x++) {
    let [low, high] = [0, 0];
    for (let i = Math.floor((x * samples.length) / used); i < ((x + 1) * samples.length) / used; i++) {
      low = Math.min(low, samples[i]!);
      high = Math.max(high, samples[i]!);
    }
    const middle = waveHeight / 2;
    const scale = (waveHeight / 2 - 2) / peak;
    context.fillRect(x, middle - high * scale, 1, Math.max(1, (high - low) * scale));
  }

  const rows = 96;
  const columns = Math.min(used, 320);
  const image = new ImageData(columns, rows);
  const ramp = colours(style);
  spectrogram(buffer, columns, rows).forEach((frame, column) =>
    frame.forEach((value, row) => {
      const at = 4 * ((rows - 1 - row) * columns + column);
      image.data.set(ramp[Math.round(255 * Math.min(1, value))]!, at);
    }),
  );
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d")!.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(small, 0, waveHeight, used, height - waveHeight);
}

/** From the ground over the accent to the ink, 256 steps. */
function colours(style: CSSStyleDeclaration): number[][] {
  const strip = new OffscreenCanvas(256, 1);
  const context = strip.getContext("2d")!;
  const gradient = context.createLinearGradient(0, 0, 256, 0);
  ["--well", "--accent", "--ink"].forEach((name, i) => gradient.addColorStop([0.15, 0.7, 1][i]!, style.getPropertyValue(name)));
  context.fillStyle = gradient;
  context.fillRect(0, 0, 256, 1);
  const data = context.getImageData(0, 0, 256, 1).data;
  return Array.from({ length: 256 }, (_, i) => [...data.subarray(4 * i, 4 * i + 4)]);
}
