// What the page knows. Components read these signals; the functions below change them.

import { computed, signal } from "@preact/signals";
import { quadtree, type Quadtree } from "d3-quadtree";
import * as api from "./api";
import type { Filters, Hit, Library, Location, Patch, SearchAnswer } from "./api";
import { hush, placeNote, play, preview, type Playing } from "./player";
import { aspects, brightnessDistance, envelopeDistance, loudnessDistance, type Aspects } from "./spectrum";
import { decode, wav } from "./wav";
import { familyName, keyName } from "./words";

// --- the library ---------------------------------------------------------------------------------

export const library = signal<Library | null>(null);
export const libraryError = signal("");
export const shown = signal<ReadonlySet<string>>(new Set());
export const families = computed(() => [...new Set(library.value?.patches.map((patch) => patch.family))].sort());
export const banks = computed(() => [...new Set(library.value?.patches.map((patch) => patch.bank))].sort());
export const byId = computed(() => new Map(library.value?.patches.map((patch) => [patch.patch_id, patch])));

const tree = computed<Quadtree<Patch>>(() =>
  quadtree<Patch>()
    .x((patch) => patch.x)
    .y((patch) => patch.y)
    .addAll((library.value?.patches ?? []).filter((patch) => shown.value.has(patch.family))),
);

export function nearest(x: number, y: number, within?: number): Patch | undefined {
  return tree.value.find(x, y, within);
}

export async function loadLibrary(): Promise<void> {
  libraryError.value = "";
  try {
    const loaded = await api.library();
    shown.value = new Set(loaded.patches.map((patch) => patch.family));
    library.value = loaded;
  } catch (error) {
    libraryError.value = api.messageOf(error);
  }
}

export function toggleFamily(family: string): void {
  const next = new Set(shown.value);
  // The first touch of a full legend shows that family alone: that is what one looks for.
  if (next.size === families.value.length) next.clear();
  if (next.has(family)) next.delete(family);
  else next.add(family);
  shown.value = next.size ? next : new Set(families.value);
}

// --- the place under the hand --------------------------------------------------------------------

export const place = signal({ x: 0.2, y: -0.4 });
export const key = signal(60);
export const touched = signal(false);
/** Keys that sound now, for the piano to show. */
export const sounding = signal<ReadonlySet<number>>(new Set());
export const said = signal("");
export const soundError = signal("");

/** Tell those who do not see it. */
export function say(text: string): void {
  said.value = text;
}

function onMap(x: number, y: number): { x: number; y: number } {
  const radius = (library.value?.map.radius ?? 1) * 0.999;
  const far = Math.hypot(x, y) / radius;
  const round = (value: number) => Math.round(500 * value) / 500;
  return far > 1 ? { x: round(x / far), y: round(y / far) } : { x: round(x), y: round(y) };
}

export function moveTo(x: number, y: number): void {
  place.value = onMap(x, y);
}

/** Play the present place; `name` is who asks, so that each finger has a note of its own. */
export function sound(name: string, pitch = key.value, { velocity = 100, whole = true } = {}): Playing {
  const { x, y } = place.value;
  touched.value = true;
  const patch = nearest(x, y);
  const playing = play(name, { x, y, pitch, velocity }, { nearby: patch, whole });
  playing.started.then(
    () => (soundError.value = ""),
    (error: unknown) => (soundError.value = api.messageOf(error)),
  );
  return playing;
}

export function choose(pitch: number): void {
  key.value = pitch;
  say(keyName(pitch));
}

/** Move to a patch and play its place. */
export function visit(patch: { x: number; y: number; name: string }): void {
  moveTo(patch.x, patch.y);
  sound("map");
  say(`${patch.name}, on the map`);
}

// --- the search ----------------------------------------------------------------------------------

export interface Query {
  name: string;
  /** What is sent; null where a patch is searched with. */
  recording: Blob | null;
  like: string | null;
  buffer: AudioBuffer | null;
}

export const query = signal<Query | null>(null);
export const answer = signal<SearchAnswer | null>(null);
export const searching = signal(false);
export const searchError = signal("");
export const located = signal<Location | null>(null);
export const locateError = signal("");
export const filters = signal<Filters>({ family: [], bank: [], octaves: false });
export const selected = signal<string | null>(null);

let asked: AbortController | undefined;

/** What is asked now; whatever was asked before is dropped. */
function begin(): AbortController {
  asked?.abort();
  return (asked = new AbortController());
}

/** Search with a recording: a file that was dropped, or what the microphone heard. */
export async function searchWith(name: string, recording: Blob): Promise<void> {
  const mine = begin();
  searching.value = true;
  let buffer: AudioBuffer | null = null;
  try {
    buffer = await decode(await recording.arrayBuffer());
  } catch {
    // The service may know what the browser does not, AIFF for one.
  }
  if (mine.signal.aborted) return;
  const sent = buffer && !/\.(wav|flac|ogg|mp3)$/i.test(name) ? wav(buffer) : recording;
  query.value = { name, recording: sent, like: null, buffer };
  located.value = null;
  await search({ locate: true });
}

/** Search with what the present place sounds like. */
export async function searchPlace(): Promise<void> {
  const mine = begin();
  try {
    const note = await placeNote({ ...place.value, pitch: key.value, velocity: 100 });
    if (!mine.signal.aborted) await searchWith(`This place at ${keyName(key.value)}`, wav(note));
  } catch (error) {
    if (asked !== mine) return;
    searching.value = false;
    searchError.value = api.messageOf(error);
  }
}

export async function searchLike(patch: { patch_id: string; name: string; links: { preview: string } }): Promise<void> {
  query.value = { name: patch.name, recording: null, like: patch.patch_id, buffer: null };
  located.value = null;
  locateError.value = "";
  preview(patch).then(
    (buffer) => {
      if (query.value?.like === patch.patch_id) query.value = { ...query.value, buffer };
    },
    () => undefined,
  );
  await search();
}

export async function search({ locate = false } = {}): Promise<void> {
  const current = query.value;
  if (!current) return;
  const mine = begin();
  searching.value = true;
  searchError.value = "";
  hush("hit");
  if (locate && current.recording) void locateIt(current.recording, mine.signal);
  try {
    answer.value = current.like
      ? await api.searchLike(current.like, filters.value, mine.signal)
      : await api.searchRecording(current.recording!, filters.value, mine.signal);
    selected.value = null;
    const [first] = answer.value.hits;
    say(first ? `${answer.value.hits.length} hits. Nearest: ${first.name}, ${familyName(first.family)}.` : "No hits.");
    if (aspectsWanted.value) void measureHits();
  } catch (error) {
    if (api.isAbort(error)) return;
    answer.value = null;
    searchError.value = api.messageOf(error);
  } finally {
    if (asked === mine) searching.value = false;
  }
}

async function locateIt(recording: Blob, signal: AbortSignal): Promise<void> {
  locateError.value = "";
  try {
    located.value = await api.locate(recording, signal);
  } catch (error) {
    if (!api.isAbort(error)) locateError.value = api.messageOf(error);
  }
}

export function setFilters(change: Partial<Filters>): void {
  filters.value = { ...filters.value, ...change };
  void search();
}

export function clearSearch(): void {
  asked?.abort();
  hush("hit");
  query.value = answer.value = located.value = selected.value = null;
  searching.value = false;
  searchError.value = locateError.value = "";
}

// --- weights -------------------------------------------------------------------------------------

export const ASPECTS = ["instrument", "colour", "brightness", "envelope", "loudness"] as const;
export type Aspect = (typeof ASPECTS)[number];
/** Those that the service does not compare. */
const MEASURED_HERE = { brightness: brightnessDistance, envelope: envelopeDistance, loudness: loudnessDistance };

export function isMeasuredHere(aspect: Aspect): aspect is keyof typeof MEASURED_HERE {
  return aspect in MEASURED_HERE;
}
export type Weights = Record<Aspect, number>;

/** null: the service's own order. */
export const weights = signal<Weights | null>(null);
export const EVEN: Weights = { instrument: 50, colour: 50, brightness: 0, envelope: 0, loudness: 0 };
const aspectsWanted = computed(() => ASPECTS.some((aspect) => isMeasuredHere(aspect) && weights.value?.[aspect]));
const measured = signal<ReadonlyMap<string, Aspects>>(new Map());
export const measuring = signal(false);

export function weigh(aspect: Aspect, weight: number): void {
  weights.value = { ...(weights.value ?? EVEN), [aspect]: weight };
  if (aspectsWanted.value) void measureHits();
}

/** The aspects of every hit, from its preview; those of an answer that comes meanwhile, too. */
async function measureHits(): Promise<void> {
  if (measuring.value) return;
  measuring.value = true;
  const asked = new Set<string>();
  const isLeft = (hit: Hit) => !measured.value.has(hit.patch_id) && !asked.has(hit.patch_id);
  for (let left = answer.value?.hits ?? []; (left = left.filter(isLeft)).length; left = answer.value?.hits ?? []) {
    const found = await Promise.allSettled(
      left.map(async (hit) => {
        asked.add(hit.patch_id);
        return [hit.patch_id, aspects(await preview(hit))] as const;
      }),
    );
    measured.value = new Map([...measured.value, ...found.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []))]);
    const failed = found.find((each) => each.status === "rejected");
    if (failed) searchError.value = api.messageOf(failed.reason);
  }
  measuring.value = false;
}

const queryAspects = computed(() => (query.value?.buffer ? aspects(query.value.buffer) : null));

/** The hits in the order of the weights. Each aspect is taken relative to its median among these hits; what is not
 * measured yet, or cannot be, counts as the median. */
export const ordered = computed<Hit[]>(() => {
  const hits = answer.value?.hits ?? [];
  const given = weights.value;
  if (!given || !hits.length) return hits;
  const mine = queryAspects.value;
  const apart = (hit: Hit, aspect: Aspect): number | undefined => {
    if (aspect === "instrument") return hit.stage1_distance;
    if (aspect === "colour") return hit.stage2_distance;
    const theirs = measured.value.get(hit.patch_id);
    return mine && theirs ? MEASURED_HERE[aspect](mine, theirs) : undefined;
  };
  const scores = hits.map(() => 0);
  for (const aspect of ASPECTS) {
    const distances = hits.map((hit) => apart(hit, aspect));
    const known = distances.filter((each) => each !== undefined).sort((a, b) => a - b);
    const middle = known[Math.floor(known.length / 2)] || 1;
    distances.forEach((distance, i) => (scores[i]! += (given[aspect] * (distance ?? middle)) / middle));
  }
  return hits.map((_, i) => i).sort((a, b) => scores[a]! - scores[b]! || a - b).map((i) => hits[i]!);
});
