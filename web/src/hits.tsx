// The hits: hear them, look at them, hold them against what was asked with, take them home.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { messageOf, save, type Hit } from "./api";
import { Picture } from "./picture";
import { compare, hushAll, playBuffer, preview } from "./player";
import { level } from "./spectrum";
import {
  answer, ASPECTS, byId, EVEN, isMeasuredHere, measuring, moveTo, ordered, query, say, searchLike, selected, sound, weigh, weights, type Aspect,
} from "./state";
import { familyColours } from "./theme";
import { decimal, familyName, pitchName } from "./words";

const PAGE = 10;
const ASPECT_NAMES: Record<Aspect, [string, string]> = {
  instrument: ["Instrument", "stage 1: is it of the same instrument?"],
  colour: ["Tone colour", "stage 2: how unlike do they sound?"],
  brightness: ["Brightness", "measured here: spectral centroid"],
  envelope: ["Envelope", "measured here: the course of the level"],
  loudness: ["Loudness", "measured here: how loud for its peak (LUFS at full scale)"],
};

export function Hits() {
  const pages = useSignal(1);
  const hits = ordered.value;
  if (!hits.length) return <p class="empty">Nothing to show: {answer.value!.query.gate.reason}.</p>;
  return (
    <div class="results">
      <header>
        <h3>{answer.value!.total} patches, nearest first</h3>
      </header>
      <Weighing />
      <ol class="hits">
        {hits.slice(0, PAGE * pages.value).map((hit) => (
          <HitLine key={hit.patch_id} hit={hit} />
        ))}
      </ol>
      {hits.length > PAGE * pages.value && (
        <button class="plain wide" onClick={() => pages.value++}>
          Show more
        </button>
      )}
    </div>
  );
}

function Weighing() {
  const given = weights.value ?? EVEN;
  return (
    <details class="weights">
      <summary>
        Order by {weights.value ? "your weights" : "the service’s distance"}
        {measuring.value ? " …" : ""}
      </summary>
      {ASPECTS.map((aspect) => {
        const [name, meaning] = ASPECT_NAMES[aspect];
        return (
          <label key={aspect} class={weights.value ? "" : "unset"}>
            <span title={meaning}>{name}</span>
            <input
              type="range"
              min={0}
              max={100}
              step={5}
              value={given[aspect]}
              disabled={isMeasuredHere(aspect) && !query.value?.buffer}
              onInput={(event) => weigh(aspect, Number(event.currentTarget.value))}
            />
            <output>{weights.value ? given[aspect] : "–"}</output>
          </label>
        );
      })}
      <p class="quiet">
        Brightness, envelope and loudness are measured in this browser, from each patch’s preview near C4. How far a
        sound was turned up does not count: loudness is how loud it is for its peak. Orders the nearest{" "}
        {answer.value!.hits.length}.
      </p>
      {weights.value && (
        <button class="plain" onClick={() => (weights.value = null)}>
          Back to the service’s order
        </button>
      )}
    </details>
  );
}

function HitLine({ hit }: { hit: Hit }) {
  const open = selected.value === hit.patch_id;
  const problem = useSignal("");
  const pick = async () => {
    hushAll();
    selected.value = hit.patch_id;
    problem.value = "";
    try {
      void playBuffer("hit", await preview(hit));
    } catch (error) {
      problem.value = messageOf(error);
    }
  };
  return (
    <li class={open ? "open" : ""}>
      <button class="hit" aria-expanded={open} onClick={() => void pick()}>
        <span class="round" aria-hidden="true">▶</span>
        <span class="name">
          {hit.name}
          <small>
            <i style={{ background: familyColours.value.get(hit.family) }} aria-hidden="true" />
            {familyName(hit.family)}
            {hit.pitch !== null && ` · at ${pitchName(hit.pitch).split(" ")[0]}`}
            {hit.also.length > 0 && ` · and ${hit.also.length} alike`}
          </small>
        </span>
        <Distance label="instrument" value={hit.stage1_distance} />
        <Distance label="tone colour" value={hit.stage2_distance} />
      </button>
      {problem.value && <p class="problem" role="alert">{problem.value}</p>}
      {open && <Details hit={hit} onProblem={(text) => (problem.value = text)} />}
    </li>
  );
}

function Distance({ label, value }: { label: string; value: number }) {
  return (
    <span class="distance">
      <b>{decimal(value)}</b>
      <small>{label}</small>
    </span>
  );
}

function Details({ hit, onProblem }: { hit: Hit; onProblem: (text: string) => void }) {
  const buffer = useSignal<AudioBuffer | null>(null);
  useEffect(() => {
    let gone = false;
    preview(hit).then(
      (loaded) => !gone && (buffer.value = loaded),
      () => undefined, // told by whoever plays it
    );
    return () => void (gone = true);
  }, [hit.patch_id]);
  const mine = query.value?.buffer;
  const seconds = Math.min(6, Math.max(buffer.value?.duration ?? 0, mine?.duration ?? 0));
  const show = () => {
    const patch = byId.value.get(hit.patch_id);
    moveTo(hit.x, hit.y);
    sound("map");
    say(`${patch?.name ?? hit.name} on the map`);
    document.querySelector(".map")?.scrollIntoView({ behavior: "smooth", block: "nearest" });
  };
  return (
    <div class="details">
      {mine && buffer.value && <Picture buffer={mine} seconds={seconds} label="A, your sound" caption="A · your sound" />}
      {buffer.value && <Picture buffer={buffer.value} seconds={seconds} label={`B, ${hit.name}`} caption={`B · ${hit.name}`} />}
      <div class="actions">
        {mine && buffer.value && <Compare a={mine} b={buffer.value} name={hit.name} />}
        <button onClick={() => void searchLike(hit)}>More like this</button>
        <button onClick={() => void save(hit.links.patch, undefined, hit.name).catch((error) => onProblem(messageOf(error)))}>
          Download
        </button>
        <button onClick={show}>On the map</button>
      </div>
      <p class="quiet">
        {hit.bank} · distance {decimal(hit.distance)}
      </p>
    </div>
  );
}

/** A against B, in time with each other; one click changes over. */
function Compare({ a, b, name }: { a: AudioBuffer; b: AudioBuffer; name: string }) {
  const heard = useSignal<0 | 1 | null>(null);
  const running = useSignal<ReturnType<typeof compare> | null>(null);
  const stop = () => {
    running.value?.stop();
    running.value = heard.value = null;
  };
  useEffect(() => stop, [a, b]);
  const hear = (which: 0 | 1) => () => {
    const [loudA, loudB] = [level(a), level(b)];
    const least = Math.min(loudA, loudB);
    running.value ??= compare(a, b, [least / Math.max(loudA, 1e-6), least / Math.max(loudB, 1e-6)]);
    running.value.hear(which);
    heard.value = which;
  };
  return (
    <div class="segments" role="group" aria-label={`Your sound against ${name}, equally loud`}>
      <button aria-pressed={heard.value === 0} onClick={hear(0)}>A yours</button>
      <button aria-pressed={heard.value === 1} onClick={hear(1)}>B this</button>
      <button onClick={stop} disabled={heard.value === null} aria-label="Stop comparing">■</button>
    </div>
  );
}
