import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { messageOf, saveInstrument } from "./api";
import { TimbreMap } from "./map";
import { Piano } from "./piano";
import { Search } from "./search";
import {
  families, libraryError, loadLibrary, place, said, searchPlace, searchWith, shown, soundError, toggleFamily, touched,
} from "./state";
import { dark, familyColours, switchTheme } from "./theme";
import { familyName } from "./words";

export function App() {
  const dropping = useDrop();
  useEffect(() => void loadLibrary(), []);
  return (
    <>
      <header class="top">
        <h1>Timbrel</h1>
        <nav aria-label="Page">
          <a href="/docs">API</a>
          <a href="/licences.txt">Licences</a>
          <button class="plain" onClick={switchTheme} aria-label={dark.value ? "Light colours" : "Dark colours"}>
            {dark.value ? "☀" : "☾"}
          </button>
        </nav>
      </header>
      <main>
        <div class="instrument">
          {libraryError.value ? <Unavailable /> : <TimbreMap />}
          <Legend />
          {soundError.value && <p class="problem" role="alert">{soundError.value}</p>}
          <Piano />
          {touched.value && <Keep />}
        </div>
        <Search />
      </main>
      <p class="unseen" role="status" aria-live="polite">
        {said.value}
      </p>
      {dropping && <div class="dropping">Drop it to search</div>}
    </>
  );
}

function Legend() {
  return (
    <div class="legend" role="group" aria-label="Families shown on the map">
      {families.value.map((family) => (
        <button key={family} aria-pressed={shown.value.has(family)} onClick={() => toggleFamily(family)}>
          <i style={{ background: familyColours.value.get(family) }} aria-hidden="true" />
          {familyName(family)}
        </button>
      ))}
    </div>
  );
}

/** The present place as an instrument for a sampler. */
function Keep() {
  const busy = useSignal(false);
  const problem = useSignal("");
  const keep = async () => {
    busy.value = true;
    problem.value = "";
    try {
      await saveInstrument(place.value.x, place.value.y);
    } catch (error) {
      problem.value = messageOf(error);
    } finally {
      busy.value = false;
    }
  };
  return (
    <div class="keep">
      <button onClick={() => void searchPlace()}>Find patches like this place</button>
      <button class="plain" disabled={busy.value} onClick={() => void keep()}>
        {busy.value ? "Making the instrument…" : "Save it as a sampler instrument (SFZ)"}
      </button>
      {problem.value && <p class="problem" role="alert">{problem.value}</p>}
    </div>
  );
}

function Unavailable() {
  return (
    <div class="unavailable">
      <p role="alert">{libraryError.value}</p>
      <button class="primary" onClick={() => void loadLibrary()}>Try again</button>
    </div>
  );
}

/** A file dropped anywhere is searched with. */
function useDrop(): boolean {
  const dropping = useSignal(false);
  useEffect(() => {
    const carries = (event: DragEvent) => event.dataTransfer?.types.includes("Files");
    const over = (event: DragEvent) => {
      if (!carries(event)) return;
      event.preventDefault();
      dropping.value = true;
    };
    const leave = (event: DragEvent) => {
      if (event.relatedTarget === null) dropping.value = false;
    };
    const drop = (event: DragEvent) => {
      if (!carries(event)) return;
      event.preventDefault();
      dropping.value = false;
      const [file] = event.dataTransfer?.files ?? [];
      if (file) void searchWith(file.name, file);
    };
    addEventListener("dragover", over);
    addEventListener("dragleave", leave);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", over);
      removeEventListener("dragleave", leave);
      removeEventListener("drop", drop);
    };
  }, []);
  return dropping.value;
}
