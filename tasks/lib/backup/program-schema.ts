// What the backup program prints (service/backup/report.ts), checked at this edge: it runs in an image that may
// be older or newer than these tasks.
import type { output } from 'zod';
import { z } from '#zod';

export const Line = z.discriminatedUnion('event', [
  z.object({ event: z.literal('note'), message: z.string() }),
  z.object({ event: z.literal('warn'), message: z.string() }),
  z.object({ event: z.literal('progress'), phase: z.string(), done: z.number(), total: z.number() }),
  z.object({ event: z.literal('ready') }),
  z.object({ event: z.literal('pause') }),
  z.object({ event: z.literal('thaw') }),
  z.object({ event: z.literal('error'), code: z.string(), message: z.string(), hint: z.string().optional() }),
  z.looseObject({ event: z.literal('result') }),
]);
export type Line = output<typeof Line>;

const ArchiveRecord = z.object({
  archive: z.string(),
  source: z.enum(['created', 'adopted']),
  at: z.string(),
  version: z.string(),
  dataFormat: z.int().nullable(),
  bytes: z.number(),
  dataBytes: z.number(),
  files: z.number(),
  databases: z.number(),
  proof: z.object({ at: z.string(), seconds: z.number(), rehearsed: z.string().nullable() }).nullable(),
  problems: z.array(z.string()),
});

export const Listed = z.object({
  archive: z.string(),
  time: z.string(),
  version: z.string(),
  bytes: z.number(),
  record: ArchiveRecord.nullable(),
});
/** An archive in the backup directory; without a record it was neither made nor verified here. */
export type Listed = output<typeof Listed>;

export const CreatedArchive = ArchiveRecord.extend({
  cut: z.object({ heldMs: z.number(), attempts: z.number(), paused: z.boolean() }),
  blocked: z.record(z.string(), z.number()),
  skipped: z.array(z.object({ path: z.string(), reason: z.string() })),
  seconds: z.number(),
  owner: z.object({ uid: z.number(), gid: z.number() }),
  proofSeconds: z.number(),
  peakMegabytes: z.number(),
  /** All that are there now, this one included; an older program does not say. */
  archives: z.array(Listed).optional(),
});
export type CreatedArchive = output<typeof CreatedArchive>;

export const Listing = z.object({ archives: z.array(Listed), free: z.number() });

const Summary = z.object({
  origin: z.object({ project: z.string(), version: z.string(), image: z.string(), revision: z.string() }),
  at: z.string(),
  dataFormat: z.int().nullable(),
  owner: z.object({ uid: z.number(), gid: z.number() }),
  files: z.number(),
  bytes: z.number(),
});
export type Summary = output<typeof Summary>;

const Verdict = z.object({
  archive: z.string(),
  ok: z.boolean(),
  problems: z.array(z.string()),
  seconds: z.number(),
  manifest: Summary.nullable(),
});
export type Verdict = output<typeof Verdict>;
export const Verdicts = z.object({ verdicts: z.array(Verdict) });

export const Removed = z.object({ removed: z.array(z.string()) });
export const Unpacked = z.object({ manifest: Summary });
export const Preview = z.object({
  problems: z.array(z.string()),
  manifest: Summary.nullable(),
  present: z.object({
    exists: z.boolean(),
    entries: z.number(),
    files: z.number(),
    bytes: z.number(),
    uid: z.number(),
    gid: z.number(),
  }),
  free: z.number(),
});
export const Asked = z.object({ status: z.number(), body: z.string() });
export const Nothing = z.object({});
