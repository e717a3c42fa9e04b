// The service's questions and answers, as /docs.json describes them.

export interface Links {
  patch: string;
  preview: string;
}

export interface Patch {
  patch_id: string;
  name: string;
  family: string;
  bank: string;
  engine: string;
  x: number;
  y: number;
  pitches: number[];
  links: Links;
}

export interface Library {
  map: { radius: number; pitch_low: number; pitch_high: number; velocity_low: number; velocity_high: number };
  patches: Patch[];
}

export interface Heard {
  f0_hz: number | null;
  midi: number | null;
  confidence: number;
  gate: { decision: string; reason: string };
}

export interface Hit {
  patch_id: string;
  name: string;
  family: string;
  bank: string;
  pitch: number | null;
  stage1_distance: number;
  stage2_distance: number;
  distance: number;
  x: number;
  y: number;
  also: string[];
  links: Links;
}

export interface SearchAnswer {
  query: Heard;
  hits: Hit[];
  total: number;
  offset: number;
}

export interface Location {
  x: number;
  y: number;
  query: Heard;
  nearest: { patch_id: string; name: string; distance: number }[];
}

export interface Filters {
  family: string[];
  bank: string[];
  octaves: boolean;
}

/** What the service said instead of an answer; `message` is meant for people. */
export class ServiceError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, init); // where a key is needed, the browser has asked for it and sends it
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ServiceError("unreachable", "The service does not answer. Is it still running?", 0);
  }
  if (answer.ok) return answer;
  const body = (await answer.json().catch(() => null)) as { error?: { code: string; message: string } } | null;
  const problem = body?.error ?? { code: "unknown", message: `the service answered ${answer.status}` };
  throw new ServiceError(problem.code, sentence(problem.message), answer.status);
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function json(values: object, signal?: AbortSignal): RequestInit {
  return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(values), signal };
}

export const HITS = 40;

const PAGE = 1000;

/** The map, and every patch on it. */
export async function library(): Promise<Library> {
  const { map } = (await (await ask("/info")).json()) as Pick<Library, "map">;
  const patches: Patch[] = [];
  let total: number;
  do {
    const page = (await (await ask(`/patches?offset=${patches.length}&limit=${PAGE}`)).json()) as {
      total: number;
      patches: Patch[];
    };
    patches.push(...page.patches);
    total = page.patches.length ? page.total : 0;
  } while (patches.length < total);
  return { map, patches };
}

export async function searchLike(patchId: string, filters: Filters, signal: AbortSignal): Promise<SearchAnswer> {
  return (await ask("/search", json({ like: patchId, k: HITS, ...filters }, signal))).json();
}

export async function searchRecording(recording: Blob, filters: Filters, signal: AbortSignal): Promise<SearchAnswer> {
  const form = recordingForm(recording);
  form.set("k", String(HITS));
  form.set("octaves", String(filters.octaves));
  for (const family of filters.family) form.append("family", family);
  for (const bank of filters.bank) form.append("bank", bank);
  return (await ask("/search", { method: "POST", body: form, signal })).json();
}

export async function locate(recording: Blob, signal: AbortSignal): Promise<Location> {
  return (await ask("/locate", { method: "POST", body: recordingForm(recording), signal })).json();
}

function recordingForm(recording: Blob): FormData {
  const form = new FormData();
  form.set("audio", recording, "recording");
  return form;
}

export interface Note {
  x: number;
  y: number;
  pitch: number;
  velocity: number;
  seconds: number;
}

export async function synthesize(note: Note, signal?: AbortSignal): Promise<ArrayBuffer> {
  return (await ask("/synthesize", json(note, signal))).arrayBuffer();
}

export async function bytes(path: string, signal?: AbortSignal): Promise<ArrayBuffer> {
  return (await ask(path, { signal })).arrayBuffer();
}

/** Save what the service answers, under the name that it gives. */
export async function save(path: string, init: RequestInit | undefined, fallback: string): Promise<void> {
  const answer = await ask(path, init);
  const disposition = answer.headers.get("content-disposition") ?? "";
  const encoded = /filename\*=UTF-8''([^;]+)/.exec(disposition)?.[1];
  const plain = /filename="([^"]+)"/.exec(disposition)?.[1];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = encoded ? decodeURIComponent(encoded) : (plain ?? fallback);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function saveInstrument(x: number, y: number): Promise<void> {
  return save("/instrument", json({ x, y }), "instrument.zip");
}
