// The timbre map: a canvas of dots that plays wherever it is touched.

import { effect, signal, useSignal } from "@preact/signals";
import { select } from "d3-selection";
import { zoom, zoomIdentity, type ZoomTransform } from "d3-zoom";
import { useEffect, useRef } from "preact/hooks";
import type { Patch } from "./api";
import { draw, type Scene } from "./drawing";
import { ends, Path, playing as pathStep, steps } from "./path";
import { preview, type Playing } from "./player";
import {
  answer, byId, key, library, located, moveTo, nearest, ordered, place, query, say, selected, shown, sound, touched, visit,
} from "./state";
import { dark, familyColours } from "./theme";
import { familyName, keyName } from "./words";

export type Mode = "play" | "path" | "move";
export const mode = signal<Mode>("play");
const MODES: [Mode, string, string][] = [
  ["play", "Play", "Click or drag to play"],
  ["path", "Path", "Drag a line, then play along it"],
  ["move", "Move", "Drag to move the map"],
];
const CLOSE_PX = 14;
const DRAG_STEP = 0.025;
const MARGIN = 1.06;

/** Between places of the map and pixels of the canvas. */
class View {
  width = 1;
  height = 1;
  transform: ZoomTransform = zoomIdentity;
  constructor(private readonly radius: () => number) {}
  get unit(): number {
    return Math.min(this.width, this.height) / 2 / (MARGIN * this.radius());
  }
  toPixel = (x: number, y: number): [number, number] =>
    this.transform.apply([this.width / 2 + this.unit * x, this.height / 2 - this.unit * y]);
  toPlace = (px: number, py: number): { x: number; y: number } => {
    const [x, y] = this.transform.invert([px, py]);
    return { x: (x - this.width / 2) / this.unit, y: (this.height / 2 - y) / this.unit };
  };
}

export function TimbreMap() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const zoomBy = useRef<(factor: number | null) => void>(() => undefined);
  const hovered = useSignal<Patch | null>(null);

  useEffect(() => {
    const element = canvas.current!;
    const view = new View(() => library.value?.map.radius ?? 1);
    const moved = signal(0);
    let held: { id: number; last: { x: number; y: number } } | undefined;
    // Along a drag one note is asked for at a time: when it is there, the place that the hand has reached by then.
    let latest: Playing | undefined;
    let busy = false;
    let again = false;
    const strum = () => {
      again = busy;
      if (busy) return;
      busy = true;
      const note = sound("map", key.peek(), { whole: false });
      latest = note;
      const done = () => {
        busy = false;
        if (again) strum();
        else if (!held) note.complete();
      };
      note.started.then(done, done);
    };

    const zooming = zoom<HTMLCanvasElement, unknown>()
      .scaleExtent([1, 12])
      .filter((event: MouseEvent | TouchEvent | WheelEvent) => {
        if (event.type === "wheel") return true;
        if (event.type === "dblclick") return false;
        if ("touches" in event) return mode.peek() === "move" || event.touches.length > 1;
        return mode.peek() === "move" || event.button === 1;
      })
      .on("zoom", (event: { transform: ZoomTransform }) => {
        view.transform = event.transform;
        moved.value++;
      });
    const selection = select(element).call(zooming);
    zoomBy.current = (factor) =>
      factor === null ? zooming.transform(selection, zoomIdentity) : zooming.scaleBy(selection, factor);

    const observer = new ResizeObserver(() => {
      const { width, height } = element.getBoundingClientRect();
      element.width = Math.round(width * devicePixelRatio);
      element.height = Math.round(height * devicePixelRatio);
      [view.width, view.height] = [width, height];
      zooming.extent([[0, 0], [width, height]]).translateExtent([[0, 0], [width, height]]);
      moved.value++;
    });
    observer.observe(element);

    const where = (event: PointerEvent) => view.toPlace(event.offsetX, event.offsetY);
    const under = (event: PointerEvent): Patch | null => {
      const { x, y } = where(event);
      return nearest(x, y, CLOSE_PX / view.unit / view.transform.k) ?? null;
    };

    let resting: ReturnType<typeof setTimeout> | undefined;
    const down = (event: PointerEvent) => {
      if (mode.peek() === "move" || event.button !== 0 || (held && event.pointerId !== held.id)) {
        if (held) latest?.release(); // a second finger zooms
        held = undefined;
        return;
      }
      element.setPointerCapture(event.pointerId);
      const last = where(event);
      const patch = under(event);
      if (mode.peek() === "path") {
        ends.value = [last, last];
        held = { id: event.pointerId, last };
        return;
      }
      moveTo(patch?.x ?? last.x, patch?.y ?? last.y);
      held = { id: event.pointerId, last };
      latest = sound("map");
      say(patch ? `${patch.name}, ${familyName(patch.family)}` : "");
    };
    const move = (event: PointerEvent) => {
      if (held?.id !== event.pointerId) {
        hovered.value = under(event);
        clearTimeout(resting);
        const { x, y } = where(event);
        resting = setTimeout(() => {
          const patch = nearest(x, y);
          if (patch) void preview(patch).catch(() => undefined); // at hand, should the service be slow
        }, 60);
        return;
      }
      const { x, y } = where(event);
      if (mode.peek() === "path") {
        ends.value = [ends.peek()![0], { x, y }];
        return;
      }
      if (Math.hypot(x - held.last.x, y - held.last.y) < DRAG_STEP / Math.sqrt(view.transform.k)) return;
      held.last = { x, y };
      moveTo(x, y);
      hovered.value = under(event);
      strum();
      clearTimeout(resting);
      resting = setTimeout(() => !busy && latest?.complete(), 180);
    };
    const up = (event: PointerEvent) => {
      if (held?.id !== event.pointerId) return;
      held = undefined;
      clearTimeout(resting);
      if (!busy && mode.peek() === "play") latest?.complete();
    };
    const leave = () => (hovered.value = null);
    element.addEventListener("pointerdown", down);
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", up);
    element.addEventListener("pointercancel", up);
    element.addEventListener("pointerleave", leave);

    let frame = 0;
    const stopDrawing = effect(() => {
      moved.value;
      const scene: Scene = {
        dark: dark.value,
        radius: library.value?.map.radius ?? 1,
        patches: library.value?.patches ?? [],
        colours: familyColours.value,
        shown: shown.value,
        hovered: hovered.value,
        place: touched.value ? place.value : null,
        hits: answer.value ? ordered.value.slice(0, 10) : [],
        selected: byId.value.get(selected.value ?? "") ?? null,
        located: located.value ?? (query.value?.like ? (byId.value.get(query.value.like) ?? null) : null),
        path: mode.value === "path" ? ends.value : null,
        steps: steps.value,
        step: pathStep.value,
      };
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => draw(element, scene, view));
    });
    return () => {
      stopDrawing();
      observer.disconnect();
      for (const [type, listener] of [["pointerdown", down], ["pointermove", move], ["pointerup", up]] as const) {
        element.removeEventListener(type, listener);
      }
    };
  }, []);

  const onKeyDown = (event: KeyboardEvent) => {
    const far = event.shiftKey ? 0.1 : 0.02;
    const step = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] }[event.key];
    if (step) {
      moveTo(place.value.x + step[0]!, place.value.y + step[1]!);
      touched.value = true;
      const patch = nearest(place.value.x, place.value.y);
      say(`${place.value.x.toFixed(2)}, ${place.value.y.toFixed(2)}${patch ? `, near ${patch.name}` : ""}`);
    } else if (event.key === "Enter" || event.key === " ") {
      sound("map");
    } else if (event.key === "+" || event.key === "=") zoomBy.current(1.5);
    else if (event.key === "-") zoomBy.current(1 / 1.5);
    else if (event.key === "0") zoomBy.current(null);
    else return;
    event.preventDefault();
  };

  const patches = library.value?.patches ?? [];
  const first = patches.find((patch) => patch.family === "keyboard") ?? patches[0];
  useEffect(() => {
    if (first) void preview(first).catch(() => undefined); // the first sound comes at once
  }, [first]);

  return (
    <section class="map" aria-label="Timbre map">
      <div class="toolbar">
        <div class="segments" role="group" aria-label="What dragging does">
          {MODES.map(([each, label, title]) => (
            <button key={each} aria-pressed={mode.value === each} title={title} onClick={() => (mode.value = each)}>
              {label}
            </button>
          ))}
        </div>
        {mode.value === "path" ? <Path /> : <Finder />}
      </div>
      <div class="canvas">
        <canvas
          ref={canvas}
          tabindex={0}
          role="application"
          aria-label="Timbre map. Arrow keys move, Enter plays, plus and minus zoom."
          class={mode.value}
          onKeyDown={onKeyDown}
        />
        {!library.value && <p class="over quiet">Loading the library…</p>}
        {library.value && !touched.value && mode.value === "play" && (
          <button class="start" onClick={() => first && visit(first)}>
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <path d="M8 5v14l11-7z" />
            </svg>
            Play a sound
          </button>
        )}
        <div class="zoom" role="group" aria-label="Zoom">
          <button aria-label="Zoom in" onClick={() => zoomBy.current(1.6)}>+</button>
          <button aria-label="Zoom out" onClick={() => zoomBy.current(1 / 1.6)}>−</button>
          <button aria-label="Show the whole map" onClick={() => zoomBy.current(null)}>⤢</button>
        </div>
        <p class="readout" aria-hidden="true">
          {hovered.value ? (
            <>
              <i style={{ background: familyColours.value.get(hovered.value.family) }} />
              {hovered.value.name} <span>{familyName(hovered.value.family)}</span>
            </>
          ) : touched.value ? (
            <span>
              {place.value.x.toFixed(2)}, {place.value.y.toFixed(2)} · {keyName(key.value)}
            </span>
          ) : null}
        </p>
      </div>
    </section>
  );
}

/** A patch by its name. */
function Finder() {
  const visitNamed = (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    const patch = library.value?.patches.find((each) => each.name.toLowerCase() === input.value.trim().toLowerCase());
    if (patch) {
      visit(patch);
      input.value = "";
    }
  };
  return (
    <>
      <input class="finder" type="search" list="names" placeholder="Find a patch" aria-label="Find a patch" onChange={visitNamed} />
      <datalist id="names">
        {library.value?.patches.map((patch) => <option key={patch.patch_id} value={patch.name} />)}
      </datalist>
    </>
  );
}
