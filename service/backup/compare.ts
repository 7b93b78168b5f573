// In which ways an archive can differ from its manifest, in words. Pure, and apart so that every kind of damage
// can be tested without a file.
import type { Entry } from './schema.ts';

/** An entry as it lies in the archive. */
export interface Seen extends Pick<Entry, 'path' | 'type' | 'size' | 'mode' | 'uid' | 'gid'> {
  linkname: string;
  sha256: string;
}

function differences(seen: Seen, listed: Entry): string[] {
  const name = seen.path || '(the data directory)';
  if (seen.type !== listed.type) return [`changed: ${name} is a ${seen.type}, expected a ${listed.type}`];
  if (seen.size !== listed.size) {
    const how = seen.size > listed.size ? 'appended' : 'truncated';
    return [`${how}: ${name} has ${seen.size} bytes, expected ${listed.size}`];
  }
  if (listed.type === 'file' && seen.sha256 !== listed.sha256)
    return [`changed: ${name} has another content`];
  if (listed.type === 'symlink' && seen.linkname !== listed.linkname)
    return [`changed: ${name} leads to ${seen.linkname}, expected ${listed.linkname}`];
  return (['mode', 'uid', 'gid'] as const)
    .filter((one) => seen[one] !== listed[one])
    .map((one) => `changed: ${name} has ${one} ${seen[one]}, expected ${listed[one]}`);
}

/** Everything in which the entries that are there differ from those that the manifest lists. */
export function compareEntries(seen: readonly Seen[], listed: readonly Entry[]): string[] {
  const remaining = new Map<string, Entry[]>();
  for (const entry of listed) {
    const same = remaining.get(entry.path);
    if (same) same.push(entry);
    else remaining.set(entry.path, [entry]);
  }
  const problems = seen.flatMap((entry) => {
    const expected = remaining.get(entry.path)?.shift();
    return expected ? differences(entry, expected) : [`extra: ${entry.path}`];
  });
  return [...problems, ...[...remaining.values()].flat().map(({ path }) => `missing: ${path}`)];
}
