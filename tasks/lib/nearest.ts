// "Did you mean …?" for flags, arguments and configuration keys alike.
import { closest, distance } from './libraries.ts';

/** The candidate that `text` was probably meant to be, or undefined if none is near enough. */
export function nearest(text: string, candidates: readonly string[]): string | undefined {
  if (candidates.length === 0) return undefined;
  const match = closest(text, candidates);
  return distance(text, match) <= Math.max(2, Math.floor(text.length / 3)) ? match : undefined;
}

/** A hint for an unknown name: the nearest one, else all of them. */
export function suggestion(text: string, candidates: readonly string[]): string {
  const match = nearest(text, candidates);
  return match ? `did you mean ${match}?` : `valid: ${candidates.join(', ')}`;
}
