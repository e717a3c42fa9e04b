// What sounds like this? A file, the microphone or a patch asks; here is what was heard of it.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { messageOf } from "./api";
import { Hits } from "./hits";
import { Picture } from "./picture";
import { playBuffer } from "./player";
import { record, type Recording } from "./recorder";
import {
  answer, banks, clearSearch, families, filters, locateError, located, moveTo, query, search, searchError, searching,
  searchWith, setFilters, sound,
} from "./state";
import { decimal, decisionInWords, familyName, percent, pitchName } from "./words";

export function Search() {
  return (
    <section class="search" aria-labelledby="search-title">
      <h2 id="search-title">What sounds like this?</h2>
      <Ask />
      {query.value ? (
        <Asked />
      ) : (
        <p class="quiet">
          Give it one note of an instrument, and it names the patches that come nearest: to hear, to compare, to download.
          Or play the map, and look for patches like the place you found.
        </p>
      )}
      {query.value && <FilterChoice />}
      {searchError.value && (
        <div class="problem" role="alert">
          <p>{searchError.value}</p>
          <button class="plain" onClick={() => void search({ locate: true })}>Try again</button>
        </div>
      )}
      {searching.value && <p class="quiet" role="status">Listening…</p>}
      {answer.value && !searching.value && <Hits />}
    </section>
  );
}

function Ask() {
  const input = useRef<HTMLInputElement>(null);
  const choose = (event: Event) => {
    const element = event.currentTarget as HTMLInputElement;
    const [file] = element.files ?? [];
    if (file) void searchWith(file.name, file);
    element.value = "";
  };
  return (
    <div class="ask">
      <button class="drop" onClick={() => input.current?.click()}>
        <strong>Choose a recording</strong>
        <span>or drop one anywhere on this page</span>
      </button>
      <input ref={input} type="file" accept="audio/*,.wav,.flac,.ogg,.mp3,.aif,.aiff" aria-label="Recording to search with" hidden onChange={choose} />
      <Microphone />
    </div>
  );
}

function Microphone() {
  const recording = useSignal<Recording | null>(null);
  const problem = useSignal("");
  const level = useSignal(0);
  const asking = useRef(false);
  const meter = useRef<HTMLButtonElement>(null);

  useEffect(() => {
    const current = recording.value;
    if (!current) return;
    const timer = setInterval(() => (level.value = current.level()), 60);
    return () => clearInterval(timer);
  }, [recording.value]);

  const toggle = async () => {
    if (recording.value) {
      recording.value.stop();
      return;
    }
    if (asking.current) return; // the browser still asks whether it may
    problem.value = "";
    asking.current = true;
    try {
      recording.value = await record().finally(() => (asking.current = false));
      const heard = await recording.value.done;
      recording.value = null;
      await searchWith("Microphone", heard);
    } catch (error) {
      recording.value = null;
      problem.value = messageOf(error);
    }
  };
  return (
    <>
      <button ref={meter} class={`record ${recording.value ? "on" : ""}`} aria-pressed={!!recording.value} onClick={() => void toggle()}>
        <i style={{ transform: `scale(${recording.value ? 1 + 0.8 * level.value : 1})` }} aria-hidden="true" />
        {recording.value ? "Stop and search" : "Record"}
      </button>
      {problem.value && <p class="problem" role="alert">{problem.value}</p>}
    </>
  );
}

function Asked() {
  const { name, buffer, like } = query.value!;
  const heard = answer.value?.query;
  const place = located.value;
  return (
    <article class="asked" aria-label="Your sound">
      <header>
        <button class="round" disabled={!buffer} aria-label={`Play ${name}`} onClick={() => buffer && void playBuffer("hit", buffer)}>▶</button>
        <h3>{like ? `Like ${name}` : name}</h3>
        <button class="plain" onClick={clearSearch} aria-label="Clear the search">✕</button>
      </header>
      {buffer ? (
        <Picture buffer={buffer} seconds={buffer.duration} label="Your sound" />
      ) : (
        !like && <p class="quiet">This browser cannot play this format; the service may know it.</p>
      )}
      {heard && (
        <dl>
          <div>
            <dt>Pitch</dt>
            <dd>{heard.midi === null || heard.f0_hz === null ? "none found" : `${pitchName(heard.midi)} · ${heard.f0_hz.toFixed(1)} Hz`}</dd>
          </div>
          <div>
            <dt>Sure</dt>
            <dd>{percent(heard.confidence)}</dd>
          </div>
          {place && (
            <div>
              <dt>On the map</dt>
              <dd>
                <button
                  class="link"
                  onClick={() => {
                    moveTo(place.x, place.y);
                    sound("map");
                  }}
                >
                  {decimal(place.x)}, {decimal(place.y)} ▸
                </button>
              </dd>
            </div>
          )}
        </dl>
      )}
      {heard && <p class="gate" title={heard.gate.reason}>{decisionInWords(heard.gate.decision)}</p>}
      {locateError.value && <p class="quiet">Its place on the map is not known: {locateError.value}</p>}
    </article>
  );
}

function FilterChoice() {
  const { family, bank, octaves } = filters.value;
  const count = family.length + bank.length + Number(octaves);
  const toggle = (each: string) =>
    setFilters({ family: family.includes(each) ? family.filter((other) => other !== each) : [...family, each] });
  return (
    <details class="filters">
      <summary>Filters{count ? ` (${count})` : ""}</summary>
      <div class="chips" role="group" aria-label="Families">
        {families.value.map((each) => (
          <button key={each} class="chip" aria-pressed={family.includes(each)} onClick={() => toggle(each)}>
            {familyName(each)}
          </button>
        ))}
      </div>
      <label>
        Bank
        <select value={bank[0] ?? ""} onChange={(event) => setFilters({ bank: event.currentTarget.value ? [event.currentTarget.value] : [] })}>
          <option value="">all banks</option>
          {banks.value.map((each) => (
            <option key={each} value={each}>
              {each}
            </option>
          ))}
        </select>
      </label>
      <label class="check">
        <input type="checkbox" checked={octaves} onChange={(event) => setFilters({ octaves: event.currentTarget.checked })} />
        also other octaves
      </label>
    </details>
  );
}
