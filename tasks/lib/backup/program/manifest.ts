// The two things that outlive this program: the manifest, last file of every archive, and the record, a small file beside
// the archive that says whether it was verified. Both are read back from disks and other machines.
import * as z from 'zod';
import { placeOf, shown } from './files.ts';
import { BackupError } from './report.ts';

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const Entry = z.strictObject({
  /** With the place before it: `data`, `data/memory.db`. */
  path: z.string(),
  type: z.enum(['file', 'directory', 'symlink']),
  size: z.int().min(0),
  sha256: sha256.optional(),
  linkname: z.string().optional(),
  mode: z.int().min(0),
  uid: z.int().min(0),
  gid: z.int().min(0),
  mtimeMs: z.number(),
  /** The file changed while it was read; a later entry of the same path holds it. */
  superseded: z.literal(true).optional(),
});
export type Entry = z.output<typeof Entry>;

const Database = z.strictObject({
  path: z.string(),
  /** Of the original; the copy is in `delete` mode. */
  journalMode: z.string(),
  pages: z.int().min(0),
  pageSize: z.int().min(0),
  /** What `PRAGMA integrity_check` says of the copy: `ok`, or the first problems. */
  integrity: z.string(),
  /** Rows of every table, counted in the snapshot that was copied. */
  rows: z.record(z.string(), z.int()),
});
export type DatabaseFacts = z.output<typeof Database>;

/** Something that the archive does not hold, and why. */
const LeftOut = z.strictObject({ path: z.string(), reason: z.string() });
export type LeftOut = z.output<typeof LeftOut>;

/** What the task knows about the project and its configuration; kept as it is. */
export const Origin = z.strictObject({
  project: z.string(),
  version: z.string(),
  image: z.string(),
  imageDigest: z.string(),
  revision: z.string(),
  /** Of earlier versions. */
  configHash: z.string().optional(),
});

const Manifest = z.strictObject({
  format: z.literal(2),
  origin: Origin,
  /** ISO 8601, UTC: the clock at the cut. */
  at: z.string(),
  dataFormat: z.int().nullable(),
  cut: z.strictObject({ heldMs: z.number(), attempts: z.int() }),
  /** Milliseconds for which writers of a database that is not in WAL mode had to wait. */
  blocked: z.record(z.string(), z.number()),
  databases: z.array(Database),
  /** By its nature (a socket, a link that leads out), or because the configuration says so. */
  skipped: z.array(LeftOut),
  /** Should be here and is not, or is damaged: the archive is incomplete. */
  missing: z.array(LeftOut),
  /** In the order of the archive. */
  entries: z.array(Entry),
});
export type Manifest = z.output<typeof Manifest>;

const Proof = z.strictObject({ at: z.string(), seconds: z.number(), rehearsed: z.string().nullable() });

export const ArchiveRecord = z.strictObject({
  format: z.literal(1),
  archive: z.string(),
  /** `created` by this program here, or `adopted`: brought from elsewhere and verified here. */
  source: z.enum(['created', 'adopted']),
  at: z.string(),
  version: z.string(),
  dataFormat: z.int().nullable(),
  bytes: z.int(),
  sha256,
  dataBytes: z.int(),
  files: z.int(),
  databases: z.int(),
  /** How many entries are missing; none in records from before there were incomplete archives. */
  missing: z.int().default(0),
  proof: Proof.nullable(),
  /** Why the last proof failed. */
  problems: z.array(z.string()),
});
export type ArchiveRecord = z.output<typeof ArchiveRecord>;

/** The first format had one place, whose name was not part of a path. */
// biome-ignore lint/suspicious/noExplicitAny: checked by the schema afterwards
function upgraded(manifest: any): unknown {
  if (manifest?.format !== 1) return manifest;
  const named = <T extends { path: string }>(list: T[]) =>
    list.map((one) => ({ ...one, path: one.path ? `data/${one.path}` : 'data' }));
  const { heldMs, attempts } = manifest.cut;
  const lists = {
    databases: named(manifest.databases),
    skipped: named(manifest.skipped),
    entries: named(manifest.entries),
  };
  return { ...manifest, ...lists, format: 2, missing: [], cut: { heldMs, attempts } };
}

/** @throws BackupError where it is not a manifest of a format that this program knows */
export function parseManifest(text: string | undefined): Manifest {
  if (text === undefined)
    throw new BackupError('bad-archive', 'The archive has no manifest: it is truncated');
  try {
    return Manifest.parse(upgraded(JSON.parse(text)));
  } catch (error) {
    const [summary] = (error as Error).message.slice(0, 300).split('\n');
    throw new BackupError('bad-archive', `The manifest is not valid: ${summary}`);
  }
}

const filesOf = ({ entries }: Manifest) =>
  entries.filter(({ type, superseded }) => type === 'file' && !superseded);

function counts(manifest: Manifest): { files: number; bytes: number } {
  const files = filesOf(manifest);
  return { files: files.length, bytes: files.reduce((sum, { size }) => sum + size, 0) };
}

/** The places that an archive holds, and whose each is. */
export function placesIn({ entries }: Manifest): Record<string, { uid: number; gid: number }> {
  const tops = entries.filter(({ path }) => placeOf(path) === path);
  return Object.fromEntries(tops.map(({ path, uid, gid }) => [path, { uid, gid }]));
}

/** What a person wants to know of an archive's content. */
export type Summary = ReturnType<typeof summary>;

export function summary(manifest: Manifest) {
  const { origin, at, dataFormat, skipped, missing } = manifest;
  return {
    ...{ origin, at, dataFormat, skipped, missing },
    ...{ places: Object.keys(placesIn(manifest)), ...counts(manifest) },
  };
}

export function recordOf(
  archive: string,
  manifest: Manifest,
  written: { bytes: number; sha256: string },
  source: ArchiveRecord['source'],
): ArchiveRecord {
  const { files, bytes: dataBytes } = counts(manifest);
  const { at, origin, dataFormat, databases, missing } = manifest;
  return {
    ...{ format: 1, archive, source, at, version: origin.version, dataFormat, ...written, dataBytes, files },
    ...{ databases: databases.length, missing: missing.length, proof: null, problems: [] },
  };
}

/** An entry as it lies in the archive. */
export interface Seen extends Pick<Entry, 'path' | 'type' | 'size' | 'mode' | 'uid' | 'gid'> {
  linkname: string;
  sha256: string;
}

function differences(seen: Seen, listed: Entry): string[] {
  const name = shown(seen.path);
  if (seen.type !== listed.type) return [`changed: ${name} is a ${seen.type}, expected a ${listed.type}`];
  if (seen.size !== listed.size) {
    const how = seen.size > listed.size ? 'appended' : 'truncated';
    return [`${how}: ${name} has ${seen.size} bytes, expected ${listed.size}`];
  }
  if (listed.type === 'file' && seen.sha256 !== listed.sha256)
    return [`changed: ${name} has another content`];
  if (listed.type === 'symlink' && seen.linkname !== listed.linkname)
    return [`changed: ${name} leads to ${shown(seen.linkname)}, expected ${shown(listed.linkname ?? '')}`];
  return (['mode', 'uid', 'gid'] as const)
    .filter((one) => seen[one] !== listed[one])
    .map((one) => `changed: ${name} has ${one} ${seen[one]}, expected ${listed[one]}`);
}

/** Everything in which the entries that are there differ from those that the manifest lists. Pure. */
export function compareEntries(seen: readonly Seen[], listed: readonly Entry[]): string[] {
  const remaining = new Map<string, Entry[]>();
  const final = listed.flatMap(({ path, superseded }) => (superseded ? [] : [path])).sort();
  const twice = final.filter((path, index) => path === final[index - 1]);
  for (const entry of listed) remaining.set(entry.path, [...(remaining.get(entry.path) ?? []), entry]);
  const problems = seen.flatMap((entry) => {
    const expected = remaining.get(entry.path)?.shift();
    return expected ? differences(entry, expected) : [`extra: ${shown(entry.path)}`];
  });
  return [
    ...problems,
    ...[...remaining.values()].flat().map(({ path }) => `missing: ${shown(path)}`),
    ...twice.map((path) => `twice: ${shown(path)}`),
  ];
}
