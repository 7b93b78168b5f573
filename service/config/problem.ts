// What is wrong with a configuration, said so that a person can repair it: where, which key, what was
// expected, what to write instead. All problems are collected and thrown as one error.
import { distance } from 'fastest-levenshtein';

export interface Problem {
  /** A file (with `:line:column` where known) or `environment variable NAME`. */
  where: string;
  /** Dotted key path; empty when the whole source is at fault. */
  path: string;
  message: string;
  hint?: string;
}

/** Thrown once, before anything starts, with every problem of every layer. */
export class ConfigError extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`;
    super(`Cannot use the service configuration: ${count}\n${problems.map(describeProblem).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

function describeProblem(problem: Problem): string {
  const subject = problem.path === '' ? problem.where : `${problem.where}: ${problem.path}`;
  return `  ${subject}: ${problem.message}${problem.hint ? `\n    hint: ${problem.hint}` : ''}`;
}

/** The candidate most like `word`, or undefined when none is close enough to be meant. */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  let best: { name: string; cost: number } | undefined;
  for (const name of candidates) {
    // `chunk_size` may be meant for `semantic.chunk_size`; a match of the whole path counts for more.
    const cost = Math.min(spelling(word, name), spelling(lastSegment(word), lastSegment(name)) + 0.2);
    if (cost <= 1 && (best === undefined || cost < best.cost)) best = { name, cost };
  }
  return best?.name;
}

/** 0 is equal, up to 1 is a misspelling: two edits, or half of the longer word. */
function spelling(a: string, b: string): number {
  return distance(a.toLowerCase(), b.toLowerCase()) / Math.max(a.length / 2, b.length / 2, 2);
}

function lastSegment(path: string): string {
  return path.split(/\.|__/).at(-1) ?? path;
}

/** `did you mean "x"?`, as an object to spread, so that no hint is no key. */
export function didYouMean(name: string | undefined): { hint?: string } {
  return name === undefined ? {} : { hint: `did you mean "${name}"?` };
}
