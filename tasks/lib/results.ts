// What `--json` prints, task by task: for scripts that read it, published as JSON Schema in configs/schema/. A key that
// depends on the arguments is optional; new keys may come, those here stay.
import { z } from 'zod';

const text = z.string();
const time = z.string().describe('ISO 8601, UTC');
const seconds = z.number().describe('Seconds');
const phases = z.record(z.string(), z.number()).describe('Step → seconds');
const names = z.array(text);

const problem = z.looseObject({ code: text, message: text, hint: text });
const error = z
  .object({ code: text, message: text, hint: text.nullable() })
  .describe('Only where ok is false: what went wrong, and what to do');

/** What each task prints. */
const envelope = z.looseObject({
  ok: z.boolean().describe('Exit code 0'),
  task: text,
  dryRun: z.boolean(),
  error: error.optional(),
});

const observed = {
  active: z.enum(['dev', 'prod', 'both', 'none']).describe('What is meant to run'),
  prodTag: text.nullable().describe('The release that prod runs'),
  environments: z.record(
    z.enum(['dev', 'prod']),
    z.looseObject({
      state: text.nullable().describe("Docker's word for the container's state; null: no container"),
      healthy: z.boolean(),
      url: text,
      image: text.nullable(),
      imageId: text.nullable(),
      version: text.nullable(),
      revision: text.nullable(),
    }),
  ),
};

const release = {
  version: text,
  tag: text,
  commit: text,
  digest: text.describe('sha256:… of the image'),
  image: text,
  pushed: z.boolean(),
  deployed: z.boolean(),
  resumed: z.boolean().describe('An interrupted release was completed'),
  current: text.nullable().describe('The version before'),
  phases,
  notes: text.describe('--notes-only: the entry'),
  outcome: text.describe('--undo: remove or withdraw'),
  successor: text.nullable().describe('--undo: the release that takes its place'),
};

const backup = {
  archive: text,
  bytes: z.number().describe('Of the archive'),
  dataBytes: z.number().describe('Of what it holds'),
  files: z.number(),
  databases: z.number(),
  missing: z.array(z.looseObject({ path: text, reason: text })).describe('What could not be read'),
  skipped: z.array(z.unknown()).describe('What is excluded'),
  removed: names.describe('Archives that no rule keeps'),
  at: time,
  sha256: text.describe('Of the archive'),
  dataFormat: z.unknown().describe('Number of the data format'),
  format: z.unknown().describe('Number of the archive format'),
  source: z.unknown().describe('What was backed up'),
  owner: z.unknown().describe('uid and gid of the data'),
  cut: z.unknown().describe('The moment that all databases share'),
  blocked: z.unknown().describe('How long writers of databases without WAL waited'),
  proof: z.unknown().describe('What was compared when the archive was read back'),
  problems: z.array(z.unknown()).describe('What that found'),
  proofSeconds: seconds,
  peakMegabytes: z.number(),
  phases,
  seconds,
  archives: z
    .array(z.looseObject({ archive: text, time, version: text, bytes: z.number(), proven: z.boolean() }))
    .describe('list'),
  verdicts: z
    .array(z.looseObject({ archive: text, ok: z.boolean(), problems: names, seconds }))
    .describe('verify'),
  decisions: z.array(z.looseObject({ keep: z.boolean() })).describe('prune'),
  to: text.nullable().describe('restore: the directory, null for the live data'),
  before: text.nullable().describe('restore: the directory of the data before it'),
  kept: names.describe('restore: files that no archive holds'),
  version: text.nullable(),
  free: z.number().nullable().describe('list: bytes that are free on the disk of the backups'),
  health: z.looseObject({ overdue: z.boolean() }).describe('list'),
  text: text.describe('schedule: the line of the crontab'),
  changed: z.boolean().describe('schedule'),
};

const status = {
  at: time,
  active: observed.active,
  prodTag: observed.prodTag,
  environments: z.record(
    z.enum(['dev', 'prod']),
    z.looseObject({
      active: z.boolean().describe('Meant to run'),
      health: z.enum(['healthy', 'starting', 'unhealthy', 'crash-looping', 'stopped', 'absent', 'unknown']),
      url: text,
      version: text.nullable(),
      revision: text.nullable(),
      image: text.nullable(),
      digest: text.nullable(),
      releasedAs: text.nullable(),
      restarts: z.number().nullable(),
      uptimeSeconds: z.number().nullable(),
      problems: z.array(problem),
    }),
  ),
  measures: z.array(
    z.looseObject({
      id: text,
      value: z.number().nullable(),
      aim: z.number(),
      unit: z.enum(['seconds', 'bytes', 'ratio']),
      reached: z.boolean().nullable(),
    }),
  ),
  uptime: z.looseObject({ ratio: z.number().nullable() }),
  lastSwitch: z.looseObject({ at: time, to: text.nullable(), seconds, outcome: text }).nullable(),
  backup: z.looseObject({ at: time.nullable(), overdue: z.boolean(), failure: text.nullable() }),
  data: z.looseObject({ directory: text, bytes: z.number().nullable() }),
  engine: z.looseObject({ running: z.boolean() }),
  problems: z.array(problem),
  notes: names,
  sample: z.looseObject({ at: time, prod: z.enum(['up', 'down', 'off']) }).describe('--record'),
  healing: text.nullable().describe('--record --heal: what was done'),
};

const checks = z.array(
  z.looseObject({
    id: text,
    title: text,
    verdict: z.enum(['ok', 'warning', 'failed', 'unchecked']),
    detail: text,
    remedy: text.optional(),
    seconds,
  }),
);

const optional = (shape: z.ZodRawShape) => envelope.extend(z.object(shape).partial().shape);

/** Task → what it prints. */
export const resultSchemas = {
  up: optional({ ...observed, seconds }),
  setup: optional({ changed: z.boolean(), plan: names, dataDirectory: text, seconds }),
  release: optional(release),
  'build-push': optional({
    image: text,
    digest: text,
    version: text,
    revision: text,
    built: z.boolean().describe('false: the image was there'),
    pushed: text.nullable().describe('Its digest in the registry'),
  }),
  'switch-env': optional({
    ...observed,
    changed: z.boolean(),
    phases,
    gaps: z.record(z.string(), z.number()).describe('Environment → downtime in milliseconds'),
    interrupted: z.looseObject({}).nullable().describe('status: a switch to resume'),
  }),
  backup: optional(backup),
  migrate: optional({ state: text, changed: z.boolean() }),
  status: optional(status),
  doctor: optional({
    counts: z.record(z.enum(['ok', 'warning', 'failed', 'unchecked']), z.number()),
    checks,
    environment: text.describe('--config'),
    values: z.array(z.looseObject({ path: text, origin: text })).describe('--config'),
  }),
};
