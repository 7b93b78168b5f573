// Durations as compose writes them (`1m30s`, `500ms`): Go's form, which JavaScript has no reader for. Pure.

const UNITS: Record<string, number> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 0.001,
  µs: 0.001,
  ns: 1e-6,
};

/** Milliseconds, or undefined for nothing and for what is not a duration. */
export function parseDuration(text: string | undefined): number | undefined {
  if (!text || !/^(?:[\d.]+(?:h|ms|m|s|us|µs|ns))+$/.test(text)) return undefined;
  const parts = [...text.matchAll(/([\d.]+)(h|ms|m|s|us|µs|ns)/g)];
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * UNITS[unit!]!, 0);
}
