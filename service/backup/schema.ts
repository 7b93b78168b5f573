// The two things that outlive this program: the manifest, last file of every archive, and the record, a small
// file beside the archive that says whether it was proven. Both are read back from disks and other machines.
import * as z from 'zod';

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const Entry = z.strictObject({
  /** Relative to the data directory, '/' between the parts; '' is the directory itself. */
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

/** What the task knows about the program and its configuration; kept as it is. */
export const Origin = z.strictObject({
  project: z.string(),
  version: z.string(),
  image: z.string(),
  imageDigest: z.string(),
  revision: z.string(),
  configHash: z.string(),
});

export const Manifest = z.strictObject({
  format: z.literal(1),
  origin: Origin,
  /** ISO 8601, UTC: the clock at the cut. */
  at: z.string(),
  dataFormat: z.int().nullable(),
  cut: z.strictObject({ heldMs: z.number(), attempts: z.int(), paused: z.boolean() }),
  /** Milliseconds for which writers of a database that is not in WAL mode had to wait. */
  blocked: z.record(z.string(), z.number()),
  databases: z.array(Database),
  skipped: z.array(z.strictObject({ path: z.string(), reason: z.string() })),
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
  proof: Proof.nullable(),
  /** Why the last proof failed. */
  problems: z.array(z.string()),
});
export type ArchiveRecord = z.output<typeof ArchiveRecord>;

/** Bytes of the files that the archive brings back. */
export function dataBytes(manifest: Manifest): number {
  return manifest.entries.reduce((sum, entry) => sum + (entry.superseded ? 0 : entry.size), 0);
}

export function fileCount(manifest: Manifest): number {
  return manifest.entries.filter(({ type, superseded }) => type === 'file' && !superseded).length;
}

/** What a person wants to know of an archive's content. */
export function summary(manifest: Manifest): object {
  const { origin, at, dataFormat, cut, databases } = manifest;
  const root = manifest.entries.find(({ path }) => path === '');
  const owner = { uid: root?.uid ?? 0, gid: root?.gid ?? 0 };
  const counts = { files: fileCount(manifest), bytes: dataBytes(manifest) };
  return { origin, at, dataFormat, cut, owner, ...counts, databases };
}
