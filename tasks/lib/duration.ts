// How long something took, as people and JSON read it.

/** Seconds since `began` (of `performance.now()`), to a tenth. */
export function seconds(began: number): number {
  return Math.round((performance.now() - began) / 100) / 10;
}
