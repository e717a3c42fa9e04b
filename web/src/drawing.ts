// Draws the map.

import type { Hit, Patch } from "./api";

export interface Point {
  x: number;
  y: number;
}

export interface Scene {
  dark: boolean;
  radius: number;
  patches: Patch[];
  colours: ReadonlyMap<string, string>;
  shown: ReadonlySet<string>;
  hovered: Patch | null;
  place: Point | null;
  hits: Hit[];
  selected: Patch | null;
  located: Point | null;
  path: readonly [Point, Point] | null;
  steps: number;
  /** The step of the path that sounds, −1 when none does. */
  step: number;
}

interface Projection {
  width: number;
  height: number;
  unit: number;
  transform: { k: number };
  toPixel(x: number, y: number): [number, number];
}

const TURN = 2 * Math.PI;

export function draw(canvas: HTMLCanvasElement, scene: Scene, view: Projection): void {
  const style = getComputedStyle(canvas);
  const ink = style.getPropertyValue("--ink");
  const accent = style.getPropertyValue("--accent");
  const ground = style.getPropertyValue("--ground");
  const panel = style.getPropertyValue("--panel");
  const line = style.getPropertyValue("--line");
  const paint = canvas.getContext("2d")!;
  paint.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  paint.clearRect(0, 0, view.width, view.height);
  const grow = Math.sqrt(view.transform.k) * Math.max(0.75, Math.min(1.2, view.unit / 300));

  const circle = ({ x, y }: Point, radius: number) => {
    const [px, py] = view.toPixel(x, y);
    paint.beginPath();
    paint.arc(px, py, radius, 0, TURN);
  };

  paint.strokeStyle = line;
  for (const share of [1, 0.66, 0.33]) {
    paint.lineWidth = 1;
    circle({ x: 0, y: 0 }, view.unit * scene.radius * share * view.transform.k);
    paint.stroke();
  }

  for (const patch of scene.patches) {
    const seen = scene.shown.has(patch.family);
    paint.globalAlpha = seen ? 0.85 : 0.08;
    paint.fillStyle = scene.colours.get(patch.family) ?? ink;
    circle(patch, (seen ? 3.6 : 2.6) * grow);
    paint.fill();
  }
  paint.globalAlpha = 1;

  const ring = (point: Point, radius: number, colour: string, width: number) => {
    circle(point, radius);
    paint.strokeStyle = colour;
    paint.lineWidth = width;
    paint.stroke();
  };

  scene.hits.forEach((hit, rank) => {
    ring(hit, 6.5 * grow, ink, rank === 0 ? 2 : 1);
  });
  if (scene.selected) ring(scene.selected, 9 * grow, accent, 2.5);
  if (scene.hovered) ring(scene.hovered, 7 * grow, ink, 2);

  if (scene.located) {
    const [px, py] = view.toPixel(scene.located.x, scene.located.y);
    paint.save();
    paint.translate(px, py);
    paint.rotate(Math.PI / 4);
    paint.fillStyle = ink;
    paint.strokeStyle = ground;
    paint.lineWidth = 2;
    paint.fillRect(-7, -7, 14, 14);
    paint.strokeRect(-7, -7, 14, 14);
    paint.restore();
    paint.fillStyle = ink;
    paint.font = "600 12px system-ui, sans-serif";
    paint.textAlign = px > view.width - 110 ? "right" : "left";
    const at = [px + (px > view.width - 110 ? -14 : 14), py + 4] as const;
    paint.strokeStyle = panel;
    paint.lineWidth = 4;
    paint.lineJoin = "round";
    paint.strokeText("your sound", ...at);
    paint.fillText("your sound", ...at);
  }

  if (scene.path) {
    const [a, b] = scene.path;
    const [from, to] = [view.toPixel(a.x, a.y), view.toPixel(b.x, b.y)];
    paint.strokeStyle = accent;
    paint.lineWidth = 2;
    paint.beginPath();
    paint.moveTo(...from);
    paint.lineTo(...to);
    paint.stroke();
    for (let step = 0; step < scene.steps; step++) {
      const share = step / (scene.steps - 1);
      const point = { x: a.x + share * (b.x - a.x), y: a.y + share * (b.y - a.y) };
      circle(point, step === scene.step ? 10 : 4.5);
      paint.fillStyle = step === scene.step ? accent : ground;
      paint.fill();
      paint.stroke();
    }
  } else if (scene.place) {
    ring(scene.place, 11, ground, 5);
    ring(scene.place, 11, accent, 2.5);
    circle(scene.place, 2.5);
    paint.fillStyle = accent;
    paint.fill();
  }
}
