// Finds what reverts revert while commits stream by, newest first: a revert is always met before its target,
// so only the open ones are remembered. Its own file because git and GitHub write reverts in several ways.
import type { Commit } from './commits.ts';
import { splitReferences } from './footers.ts';

/** A revert in force: what it shows in the notes, unless all its targets turn up in the range. */
export interface Revert<T> {
  entries: T[];
  /** Targets that have not been met yet. */
  open: number;
  /** For the revert of a merge: the parent that stays, as written in the message. */
  mainline?: string | undefined;
}

/** What a revert does to its target: takes it back, or brings it back by taking a revert of it back. */
interface Operation {
  /** Of several the latest decides: the lowest, since commits come newest first. */
  order: number;
  restores: boolean;
}

/** What waits for a commit that a revert names. */
interface Waiting<T> {
  hash: string;
  operation: Operation;
  revert: Revert<T>;
}

/** A reverted merge: commits still to come that it brought in, and those that were there before it. */
interface RevertedMerge {
  brought: Set<string>;
  before: Set<string>;
}

const PREFIX = String.raw`^(?:\w+(?:\([^()]*\))?!?:\s+)?`;
const IS_REVERT = new RegExp(`${PREFIX}(?:revert|reapply)(?:s|ed|ing)?(?![\\w-])`, 'i');
const QUOTED_TITLE = new RegExp(`${PREFIX}(?:revert|reapply):?\\s+"(.+)"`, 'i');
const TYPED_TITLE = /^revert(?:\([^()]*\))?!?:\s+(.+)$/i;
const REVERTS_COMMIT = /\bThis (?:reverts|reapplies) commits? ([^.\n]*)/gi;
const MAINLINE = /\breversing\s{1,3}changes\s{1,3}made\s{1,3}to ([0-9a-f]{7,64})\b/i;
const REFS_FOOTER = /^refs?:(.*)$/gim;
const HASH = /\b[0-9a-f]{7,64}\b/gi;
const KEY_LENGTH = 7;

export class RevertTracker<T> {
  readonly #byHash = new Map<string, Waiting<T>[]>();
  readonly #byTitle = new Map<string, Revert<T>[]>();
  readonly #all: Revert<T>[] = [];
  #merges: RevertedMerge[] = [];
  #visited = 0;

  /** Takes the next commit: is it reverted by a newer one, and is it itself a revert in force? */
  visit(commit: Commit): { isCancelled: boolean; revert?: Revert<T> } {
    this.#visited += 1;
    const met = this.#matchHash(commit);
    const [operation] = met.map((one) => one.operation).sort((a, b) => a.order - b.order);
    const isReverted = operation?.restores === false;
    if (isReverted) for (const { revert } of met) this.#followMerge(commit, revert.mainline);
    const isBrought = this.#matchMerges(commit);
    const isCancelled = isReverted || isBrought || this.#matchTitle(commit);
    if (!IS_REVERT.test(commit.header) || (isCancelled && !isReverted)) return { isCancelled };
    const revert = this.#register(commit, operation);
    return isCancelled ? { isCancelled } : { isCancelled, revert };
  }

  /** Entries of reverts whose targets were all met: between the two releases nothing happened there. */
  settled(): Set<T> {
    return new Set(this.#all.flatMap(({ open, entries }) => (open === 0 ? entries : [])));
  }

  #register({ header, body }: Commit, done: Operation | undefined): Revert<T> {
    const hashes = targetHashes(header, body);
    const open = Math.max(1, hashes.length);
    const revert: Revert<T> = { entries: [], open, mainline: MAINLINE.exec(body)?.[1] };
    // What was done to this revert since has been done, the other way round, to its targets.
    const operation = done
      ? { ...done, restores: !done.restores }
      : { order: this.#visited, restores: false };
    for (const hash of hashes) append(this.#byHash, hash.slice(0, KEY_LENGTH), { hash, operation, revert });
    if (done?.restores === false) return revert;
    this.#all.push(revert);
    // A title is trusted only without a hash: two commits may share a title, and none may be lost.
    const title =
      hashes.length > 0 ? undefined : (QUOTED_TITLE.exec(header) ?? TYPED_TITLE.exec(header))?.[1];
    if (title) append(this.#byTitle, title, revert);
    return revert;
  }

  /** What waited for this commit; it waits no longer. */
  #matchHash(commit: Commit): Waiting<T>[] {
    const key = commit.hash.slice(0, KEY_LENGTH);
    const waiting = this.#byHash.size > 0 ? this.#byHash.get(key) : undefined;
    if (!waiting) return [];
    const met = waiting.filter(({ hash }) => commit.hash.startsWith(hash));
    if (met.length === waiting.length) this.#byHash.delete(key);
    else
      this.#byHash.set(
        key,
        waiting.filter((one) => !met.includes(one)),
      );
    for (const { revert } of met) revert.open -= 1;
    return met;
  }

  #matchTitle({ header }: Commit): boolean {
    if (this.#byTitle.size === 0) return false;
    const title = this.#byTitle.has(header) ? header : splitReferences(header).words;
    const waiting = this.#byTitle.get(title);
    if (!waiting) return false;
    waiting.pop()!.open -= 1;
    if (waiting.length === 0) this.#byTitle.delete(title);
    return true;
  }

  #followMerge({ parents }: Commit, mainline: string | undefined): void {
    const before = mainline ? parents.filter((parent) => parent.startsWith(mainline)) : [];
    const brought = before.length === 1 ? parents.filter((parent) => parent !== before[0]) : [];
    if (brought.length > 0) this.#merges.push({ brought: new Set(brought), before: new Set(before) });
  }

  /** A commit is gone with a reverted merge if it is reachable from what was merged, but not from before it. */
  #matchMerges({ hash, parents }: Commit): boolean {
    if (this.#merges.length === 0) return false;
    let isGone = false;
    for (const { brought, before } of this.#merges) {
      const wasBefore = before.delete(hash);
      const wasBrought = brought.delete(hash);
      if (wasBefore) for (const parent of parents) before.add(parent);
      if (wasBrought && !wasBefore) {
        isGone = true;
        for (const parent of parents) brought.add(parent);
      }
    }
    this.#merges = this.#merges.filter(({ brought }) => brought.size > 0);
    return isGone;
  }
}

function targetHashes(header: string, body: string): string[] {
  const sentences = [...body.matchAll(REVERTS_COMMIT)].map((match) => match[1]!.split('reversing', 1)[0]!);
  const footers = TYPED_TITLE.test(header) ? [...body.matchAll(REFS_FOOTER)].map((match) => match[1]!) : [];
  const hashes = [...sentences, ...footers].flatMap((text) => text.match(HASH) ?? []);
  return [...new Set(hashes.map((hash) => hash.toLowerCase()))];
}

function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
