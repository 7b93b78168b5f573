// What random tests draw from: a seed that they print, and numbers that it repeats.

/** SEED=… repeats a run; else a new one, to be printed. */
export function chosenSeed(): number {
  return process.env.SEED ? Number(process.env.SEED) : Math.floor(Math.random() * 2 ** 31);
}

/** Numbers from 0 to below 1 by Mulberry32: the same seed draws the same ones. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface Choice {
  /** A whole number from 0 to below `n`. */
  below: (n: number) => number;
  pick: <T>(list: readonly T[]) => T;
}

export function randomFrom(seed: number): Choice {
  const random = randomNumbers(seed);
  const below = (n: number) => Math.floor(random() * n);
  return { below, pick: (list) => list[below(list.length)]! };
}
