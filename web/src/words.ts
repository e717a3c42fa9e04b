// Numbers as people say them.

const NAMES = ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "G♯", "A", "B♭", "B"];

/** 60 → "C4". */
export function keyName(pitch: number): string {
  return `${NAMES[((pitch % 12) + 12) % 12]}${Math.floor(pitch / 12) - 1}`;
}

/** 60.05 → "C4 +5 cents". */
export function pitchName(midi: number): string {
  const key = Math.round(midi);
  const cents = Math.round((midi - key) * 100);
  return cents === 0 ? keyName(key) : `${keyName(key)} ${cents > 0 ? "+" : "−"}${Math.abs(cents)} cents`;
}

export function familyName(family: string): string {
  return family.replace("_", " ");
}

export function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

const DECISIONS: Record<string, string> = {
  pitched: "It has a clear pitch, so it is compared with patches playing near that pitch.",
  unpitched: "No clear pitch was heard, so it is compared with patches at every pitch.",
  silent: "It is silent: there is nothing to compare.",
  too_short: "It is too short to compare.",
  out_of_range: "Its pitch lies outside the library's range, so it is compared at every pitch.",
  overridden: "It is compared at the pitch that was asked for.",
  mixed: "The recordings do not agree on one pitch, so they are compared at every pitch.",
  off: "Its pitch is not looked at: it is compared at every pitch.",
};

export function decisionInWords(decision: string): string {
  return DECISIONS[decision] ?? decision;
}

const FORMAT = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export function decimal(value: number): string {
  return FORMAT.format(value);
}
