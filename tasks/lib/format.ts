// How long something took, as people and JSON read it.

/** Seconds since `began` (of `performance.now()`), to a tenth. */
export function seconds(began: number): number {
  return Math.round((performance.now() - began) / 100) / 10;
}

/** `0.4 s`, `3.6 s`, `42 s`, `5 min`, `3 h 20 min`, `12 d 4 h`. */
export function duration(seconds: number): string {
  if (seconds < 10) return `${(Math.round(seconds * 10) / 10).toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  const days = Math.floor(hours / 24);
  return hours % 24 === 0 ? `${days} d` : `${days} d ${hours % 24} h`;
}

/** `512 B`, `3.3 kB`, `1.5 GB`: SI units, 1 MB = 10⁶ bytes. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(bytes, 1)) / 3)));
  const value = bytes / 1000 ** power;
  return `${power > 0 && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

/** A ratio, never rounded up to a round 100: `99.95 %`, `100 %`. */
export function percent(ratio: number): string {
  if (ratio >= 1) return '100 %';
  const digits = ratio > 0.99 ? 3 : ratio > 0.1 ? 1 : 2;
  const factor = 10 ** digits;
  return `${Number((Math.floor(ratio * 100 * factor) / factor).toFixed(digits))} %`;
}

/** `12 min ago`. */
export function ago(at: string, now: Date): string {
  const seconds = (now.getTime() - Date.parse(at)) / 1000;
  return seconds < 5 ? 'just now' : `${duration(seconds)} ago`;
}
