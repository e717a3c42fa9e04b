// Dark or light: what the system prefers, until the visitor says otherwise.

import { computed, effect, signal } from "@preact/signals";
import { families } from "./state";

const STORED = "timbrel-theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(system.matches);
system.addEventListener("change", () => (systemDark.value = system.matches));

const chosen = signal(localStorage.getItem(STORED));
export const dark = computed(() => (chosen.value ? chosen.value === "dark" : systemDark.value));

export function switchTheme(): void {
  chosen.value = dark.value ? "light" : "dark";
  localStorage.setItem(STORED, chosen.value);
}

effect(() => {
  document.documentElement.dataset["theme"] = dark.value ? "dark" : "light";
});

// Equally light and strong, so that no family stands out; neighbours in the alphabet are far apart in hue.
const HUES = [255, 55, 200, 110, 305, 20, 165, 335, 80, 225, 140, 280];
export const familyColours = computed(() => {
  const [light, chroma] = dark.value ? [0.76, 0.12] : [0.58, 0.14];
  return new Map(families.value.map((family, i) => [family, `oklch(${light} ${chroma} ${HUES[i % HUES.length]})`]));
});
