// Which commits of a range a reader should hear of, and how serious they are together: merges and our own
// release commits are dropped, reverts cancel what they revert. One pass, so that any history fits in memory.
import type { Commit } from './commits.ts';
import type { Change } from './conventional.ts';
import { RevertTracker } from './reverts.ts';

/** What a range of commits amounts to. `bump` is the smallest honest step from the last stable release. */
export interface Changes {
  /** Newest first, as git lists them. */
  changes: readonly Change[];
  bump: 'major' | 'minor' | 'patch';
  /** Commits read, the silent ones included. */
  commits: number;
}

const BREAKING_FOOTER = /^BREAKING[ -]CHANGES?:/m;
const RELEASE_COMMIT = /^chore\(release\): (?:release )?\S*\d+\.\d+\.\d+\S*(?: \(#\d+\))?$/;

/**
 * Judges commits in the order of `git log --topo-order` (children first). A revert inside the range disappears
 * with its target, the revert of a revert brings the target back; a revert of something older is an entry.
 */
export async function collectChanges(commits: AsyncIterable<Commit> | Iterable<Commit>): Promise<Changes> {
  // Loaded when there are commits to read: a `--help` does not pay for the parser.
  const { commitChanges, isConventional } = await import('./conventional.ts');
  const reverts = new RevertTracker<Change>();
  const kept: Change[] = [];
  let count = 0;
  for await (const commit of commits) {
    count += 1;
    const fate = reverts.visit(commit);
    if (fate.isCancelled || isSilent(commit, isConventional)) continue;
    const changes = commitChanges(commit);
    kept.push(...changes);
    fate.revert?.entries.push(...changes);
  }
  const hidden = reverts.settled();
  const changes = hidden.size === 0 ? kept : kept.filter((change) => !hidden.has(change));
  return { changes, bump: bumpOf(changes), commits: count };
}

/** Merge commits that only join what is listed anyway, and the commits of earlier releases. */
function isSilent({ header, body, parents }: Commit, isConventional: (header: string) => boolean): boolean {
  if (parents.length > 1) return !isConventional(header) && !BREAKING_FOOTER.test(body);
  return RELEASE_COMMIT.test(header);
}

function bumpOf(changes: readonly Change[]): Changes['bump'] {
  if (changes.some(({ section }) => section === 'breaking')) return 'major';
  return changes.some(({ section }) => section === 'features') ? 'minor' : 'patch';
}
