// Paths: notes along a line between two points of the map.

import { signal } from "@preact/signals";
import type { Point } from "./drawing";
import { isAbort, messageOf } from "./api";
import { hushAll, playPath } from "./player";
import { key, library, say, soundError, touched } from "./state";

export const ends = signal<readonly [Point, Point] | null>([{ x: -0.55, y: 0.35 }, { x: 0.5, y: -0.35 }]);
export const steps = signal(7);
/** The step that sounds; −1 when none does. */
export const playing = signal(-1);
const SECONDS = 0.55;

let stop: AbortController | undefined;

function along(): Point[] {
  const radius = (library.value?.map.radius ?? 1) * 0.999;
  const [a, b] = ends.value!;
  return Array.from({ length: steps.value }, (_, step) => {
    const share = step / (steps.value - 1);
    const [x, y] = [a.x + share * (b.x - a.x), a.y + share * (b.y - a.y)];
    const shrink = Math.min(1, radius / Math.hypot(x, y));
    return { x: x * shrink, y: y * shrink };
  });
}

async function start(): Promise<void> {
  stop = new AbortController();
  touched.value = true;
  const touches = along().map((point) => ({ ...point, pitch: key.value, velocity: 100 }));
  say(`Playing ${touches.length} steps`);
  try {
    playing.value = 0;
    await playPath(touches, { seconds: SECONDS, signal: stop.signal, onStep: (step) => (playing.value = step) });
  } catch (error) {
    if (!isAbort(error)) soundError.value = messageOf(error);
  } finally {
    playing.value = -1;
  }
}

/** What belongs to the line that is drawn on the map. */
export function Path() {
  const running = playing.value >= 0;
  const set = (end: 0 | 1, axis: "x" | "y") => (event: Event) => {
    const value = Number((event.currentTarget as HTMLInputElement).value);
    const changed = { ...ends.value![end], [axis]: value };
    ends.value = end === 0 ? [changed, ends.value![1]] : [ends.value![0], changed];
  };
  return (
    <div class="path">
      <button class="primary" onClick={() => (running ? (stop?.abort(), hushAll()) : void start())}>
        {running ? "Stop" : "Play the path"}
      </button>
      <label>
        Steps
        <input
          type="number"
          min={2}
          max={24}
          value={steps.value}
          onInput={(event) => {
            const wanted = Math.round(Number(event.currentTarget.value));
            if (wanted >= 2 && wanted <= 24) steps.value = wanted;
          }}
        />
      </label>
      <details>
        <summary>Ends</summary>
        <div class="ends">
          {([0, 1] as const).map((end) =>
            (["x", "y"] as const).map((axis) => (
              <label key={`${end}${axis}`}>
                {end === 0 ? "from" : "to"} {axis}
                <input type="number" min={-1} max={1} step={0.05} value={ends.value![end][axis].toFixed(2)} onChange={set(end, axis)} />
              </label>
            )),
          )}
        </div>
      </details>
    </div>
  );
}
