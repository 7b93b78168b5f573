// From the older single-service setup to dev and prod on one host, and back.
//
// check → plan → show → confirm → apply → report. What fails is undone until the old service answers again; the old data
// is never written to, and --rollback goes back to it, days later if need be.
import {
  confirm,
  confirmByName,
  describedLegacy,
  describeMigrated,
  describePlan,
  describeRecord,
  describeRollback,
  interruptedRun,
  loadProject,
  log,
  type Migration,
  migrationData,
  migrationJourney,
  nothingFound,
  type Project,
  prepareMigration,
  readRecord,
  resumeSteps,
  runSteps,
  runTask,
  TaskError,
  undoSteps,
  usageError,
  verifyRollback,
  withLock,
} from './lib/mod.ts';

await runTask({
  name: 'migrate',
  summary: 'From the older single-service setup to dev and prod, and back.',
  flags: {
    from: {
      type: 'string',
      value: 'PATH',
      description: 'its compose file, or the folder of it; default: found',
    },
    status: {
      type: 'boolean',
      description: 'say where it stands, and how to remove what is left of the old setup',
    },
    rollback: { type: 'boolean', description: 'bring the old service back, with its data as it was' },
  },
  examples: [
    'npx tsx tasks/migrate.ts --dry-run',
    'npx tsx tasks/migrate.ts --from ~/pi-rag/docker-compose.mcp.yml',
  ],
  run: async ({ flags: { status, rollback, from } }) => {
    if ([status, rollback, from !== undefined].filter(Boolean).length > 1)
      throw usageError('migrate: --status, --rollback and --from stand alone');
    const project = await loadProject();
    if (status) return migrationStatus(project);
    return withLock(project.root, 'migrate', () => (rollback ? rollBack(project) : migrate(project, from)));
  },
});

async function migrationStatus(project: Project) {
  const interrupted = await interruptedRun(migrationJourney(project));
  if (interrupted) {
    const { data, undoing, committed, current, done } = interrupted;
    const state = undoing ? 'rolling-back' : 'migrating';
    const next = committed && !undoing ? 'finishes it' : `brings ${data.legacy.service} back first`;
    const text = `${undoing ? 'A rollback' : 'A migration'} was interrupted at ${current ?? done.at(-1) ?? 'its start'}; the next run of npx tsx tasks/migrate.ts ${next}`;
    return { data: { ...migrationData(state, data), interruptedAt: interrupted.at }, text };
  }
  const record = await readRecord(project.root);
  if (!record) return { data: { state: 'none' }, text: 'Nothing was migrated here.' };
  return { data: migrationData(record.state, record.data), text: await describeRecord(record) };
}

async function migrate(project: Project, from: string | undefined) {
  const journey = migrationJourney(project);
  const resumed = await resumeSteps(journey);
  if (resumed?.outcome === 'finished') return report(resumed.data);
  const record = await readRecord(project.root);
  if (record?.state === 'migrated') return migrationStatus(project);

  const description = describedLegacy(project);
  const data = await prepareMigration(project, description, from);
  if (!data) return { data: { state: 'none', found: false }, text: nothingFound(description) };
  log.plan(describePlan(data, journey.steps(data)));
  await confirm(`Migrate from ${data.legacy.service}?`);
  try {
    return report((await runSteps(journey, data)).data);
  } catch (error) {
    throw await withWaysOn(project, data, error);
  }
}

function report(data: Migration) {
  return { data: migrationData('migrated', data), text: describeMigrated(data) };
}

/** What is so after a failure, and how it goes on. */
async function withWaysOn(project: Project, { legacy }: Migration, error: unknown) {
  if (!(error instanceof TaskError) || error.code === 'not-restored') return error;
  const now = (await interruptedRun(migrationJourney(project)))?.committed
    ? 'what has started keeps running; resume: npx tsx tasks/migrate.ts\nor back to the old service: npx tsx tasks/migrate.ts --rollback'
    : `everything was undone: ${legacy.service} is as it was before`;
  const hint = [error.hint, now].filter(Boolean).join('\n');
  const { message, code, exitCode } = error;
  return new TaskError(`The migration failed: ${message}`, { code, exitCode, hint, cause: error });
}

async function rollBack(project: Project) {
  const journey = migrationJourney(project);
  const interrupted = await interruptedRun(journey);
  if (interrupted && (interrupted.undoing || !interrupted.committed)) {
    await resumeSteps(journey);
    return migrationStatus(project);
  }
  const record = await readRecord(project.root);
  if (record?.state !== 'migrated') {
    const { data, text } = await migrationStatus(project);
    return { data: { ...data, changed: false }, text: `Nothing to roll back. ${text}` };
  }
  const data = interrupted?.data ?? record.data;
  await verifyRollback(data);
  log.plan(describeRollback(data));
  await confirmByName(`Go back to ${data.legacy.service}?`, [data.legacy.service]);
  await undoSteps(journey, { ...data, rollsBack: true });
  return migrationStatus(project);
}
