// The JSON Schemas in configs/schema/, made from the zod schemas in the code: by them editors complete and check our
// configuration files, and scripts know what `--json` prints.
import { join } from 'node:path';
import { z } from 'zod';
import { ConfigSchema } from '../../service/config/schema.ts';
import { makeDirectory, readIfPresent, writeFileAtomic } from './files.ts';
import { projectSchema } from './project-schema.ts';

// What `--json` prints, task by task. New keys may come, those here stay; a key that depends on the arguments is optional.

const text = z.string();
const maybe = text.nullable();
const flag = z.boolean();
const number = z.number();
const time = text.describe('ISO 8601, UTC');
const seconds = number.describe('Seconds');
const phases = z.record(text, number).describe('Step → seconds');
const names = z.array(text);
const problems = z.array(z.looseObject({ code: text, message: text, hint: text }));
const byEnvironment = (shape: z.ZodRawShape) => z.record(z.enum(['dev', 'prod']), z.looseObject(shape));
const list = (shape: z.ZodRawShape) => z.array(z.looseObject(shape));

const error = z.object({ code: text, message: text, hint: maybe });

/** What each task prints, and its own keys. */
const result = (shape: z.ZodRawShape) =>
  z.looseObject({
    ok: flag.describe('Exit code 0'),
    task: text,
    dryRun: flag,
    error: error.optional().describe('Only where ok is false: what went wrong, and what to do'),
    ...z.object(shape).partial().shape,
  });

const image = { version: maybe, revision: maybe, image: maybe };
const meant = {
  active: z.enum(['dev', 'prod', 'both', 'none']).describe('What is meant to run'),
  prodTag: maybe.describe('The release that prod runs'),
};
const observed = {
  ...meant,
  environments: byEnvironment({
    state: maybe.describe("Docker's word for the container's state; null: no container"),
    ...{ healthy: flag, url: text, ...image, imageId: maybe },
  }),
};
const verdict = z.enum(['ok', 'warning', 'failed', 'unchecked']);
const health = z.enum(['healthy', 'starting', 'unhealthy', 'crash-looping', 'stopped', 'absent', 'unknown']);

/** Task → what it prints. */
export const resultSchemas = {
  up: result({ ...observed, seconds }),
  setup: result({ changed: flag, plan: names, dataDirectory: text, seconds }),
  release: result({
    ...{ version: text, tag: text, commit: text, image: text, pushed: flag, deployed: flag, phases },
    digest: text.describe('sha256:… of the image'),
    resumed: flag.describe('An interrupted release was completed'),
    current: maybe.describe('The version before'),
    notes: text.describe('--notes-only: the entry'),
    outcome: text.describe('--undo: remove or withdraw'),
    successor: maybe.describe('--undo: the release that takes its place'),
  }),
  'build-push': result({
    ...{ image: text, digest: text, version: text, revision: text },
    built: flag.describe('false: the image was there'),
    pushed: maybe.describe('Its digest in the registry'),
  }),
  'switch-env': result({
    ...{ ...observed, changed: flag, phases },
    gaps: z.record(text, number).describe('Environment → downtime in milliseconds'),
    interrupted: z.looseObject({}).nullable().describe('status: a switch to resume'),
  }),
  /** Beside these, `create` prints the archive's manifest. */
  backup: result({
    ...{ archive: text, at: time, version: maybe, files: number, databases: number, phases, seconds },
    bytes: number.describe('Of the archive'),
    dataBytes: number.describe('Of what it holds'),
    sha256: text.describe('Of the archive'),
    missing: list({ path: text, reason: text }).describe('What could not be read'),
    removed: names.describe('Archives that no rule keeps'),
    archives: list({ archive: text, time, version: text, bytes: number, proven: flag }).describe('list'),
    free: number.nullable().describe('list: bytes that are free on the disk of the backups'),
    health: z.looseObject({ overdue: flag }).describe('list'),
    verdicts: list({ archive: text, ok: flag, problems: names, seconds }).describe('verify'),
    decisions: list({ keep: flag }).describe('prune'),
    to: maybe.describe('restore: the directory, null for the live data'),
    before: maybe.describe('restore: the directory of the data before it'),
    kept: names.describe('restore: files that no archive holds'),
    text: text.describe('schedule: the line of the crontab'),
    changed: flag.describe('schedule'),
  }),
  migrate: result({ state: text, changed: flag }),
  status: result({
    ...{ at: time, ...meant, problems, notes: names },
    environments: byEnvironment({
      active: flag.describe('Meant to run'),
      ...{ health, url: text, ...image, digest: maybe, releasedAs: maybe, problems },
      ...{ restarts: number.nullable(), uptimeSeconds: number.nullable() },
    }),
    measures: list({
      ...{ id: text, value: number.nullable(), aim: number, reached: flag.nullable() },
      unit: z.enum(['seconds', 'bytes', 'ratio']),
    }),
    uptime: z.looseObject({ ratio: number.nullable() }),
    lastSwitch: z.looseObject({ at: time, to: maybe, seconds, outcome: text }).nullable(),
    backup: z.looseObject({ at: time.nullable(), overdue: flag, failure: maybe }),
    data: z.looseObject({ directory: text, bytes: number.nullable() }),
    engine: z.looseObject({ running: flag }),
    sample: z.looseObject({ at: time, prod: z.enum(['up', 'down', 'off']) }).describe('--record'),
    healing: maybe.describe('--record --heal: what was done'),
  }),
  doctor: result({
    counts: z.record(verdict, number),
    checks: list({ id: text, title: text, verdict, detail: text, remedy: text.optional(), seconds }),
    environment: text.describe('--config'),
    values: list({ path: text, origin: text }).describe('--config'),
  }),
};

// The files.

/** Path below the project → text. */
function schemaFiles(): Record<string, string> {
  const options = { io: 'input', target: 'draft-7' } as const;
  const service = z.toJSONSchema(ConfigSchema, options);
  const properties = { $schema: { type: 'string' }, ...service.properties };
  const title = 'Synapse service configuration (base file and environment files)';
  const results = Object.entries(resultSchemas).map(([task, schema]) => {
    const { $schema, ...rest } = z.toJSONSchema(schema, { target: 'draft-7' });
    return [`result-${task}`, { $schema, title: `What ${task} --json prints`, ...rest }];
  });
  const schemas: Record<string, object> = {
    synapse: { ...service, title, properties },
    release: { ...z.toJSONSchema(projectSchema, options), title: 'configs/release.toml' },
    ...Object.fromEntries(results),
  };
  return Object.fromEntries(
    Object.entries(schemas).map(([name, schema]) => [
      `configs/schema/${name}.json`,
      `${JSON.stringify(schema, null, 2)}\n`,
    ]),
  );
}

/** The schema files that are not what the code says. */
export async function outdatedSchemas(root: string): Promise<Record<string, string>> {
  const wanted = Object.entries(schemaFiles());
  const present = await Promise.all(wanted.map(([path]) => readIfPresent(join(root, path))));
  return Object.fromEntries(wanted.filter(([, content], index) => content !== present[index]));
}

export async function writeSchemas(root: string, schemas: Record<string, string>): Promise<void> {
  await makeDirectory(join(root, 'configs/schema'));
  for (const [path, content] of Object.entries(schemas)) await writeFileAtomic(join(root, path), content);
}
