// From the older single-service setup to dev and prod on one host, and back.
//
// check → plan → show → confirm → apply → report. A failure is rolled back until the old service answers again; the old
// data is never written to, and --rollback returns to it, days later if need be.
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
  planMigration,
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
  summary: 'Migrate from the older single-service setup to dev and prod, or roll back.',
  flags: {
    status: {
      type: 'boolean',
      description: 'show the state, and the commands that remove what is left of the old setup',
    },
    rollback: { type: 'boolean', description: 'start the old service again, with its data as it was' },
  },
  examples: ['npm run migrate -- --dry-run', 'npm run migrate -- --rollback'],
  run: async ({ flags: { status, rollback } }) => {
    if (status && rollback) throw usageError('migrate: --status and --rollback cannot be combined');
    const project = await loadProject();
    if (status) return migrationStatus(project);
    return withLock(project.root, 'migrate', () => (rollback ? rollBack(project) : migrate(project)));
  },
});

async function migrationStatus(project: Project) {
  const interrupted = await interruptedRun(migrationJourney(project));
  if (interrupted) {
    const { data, undoing, committed, current, done } = interrupted;
    const state = undoing ? 'rolling-back' : 'migrating';
    const next = committed && !undoing ? 'completes it' : `first rolls back to ${data.legacy.service}`;
    const text = `${undoing ? 'A rollback' : 'A migration'} was interrupted at "${current ?? done.at(-1) ?? 'its start'}". The next run ${next}: npm run migrate`;
    return { data: { ...migrationData(state, data), interruptedAt: interrupted.at }, text };
  }
  const record = await readRecord(project.root);
  if (!record) return { data: { state: 'none' }, text: 'No migration was run here.' };
  return { data: migrationData(record.state, record.data), text: await describeRecord(record) };
}

async function migrate(project: Project) {
  const journey = migrationJourney(project);
  const resumed = await resumeSteps(journey);
  if (resumed?.outcome === 'finished') return report(resumed.data);
  const record = await readRecord(project.root);
  if (record?.state === 'migrated') return migrationStatus(project);

  const data = await planMigration(project);
  if (!data)
    return { data: { state: 'none', found: false }, text: nothingFound(describedLegacy(project).service) };
  log.plan(describePlan(data, journey.steps(data)));
  await confirm(`Migrate from ${data.legacy.service}?`);
  try {
    return report((await runSteps(journey, data)).data);
  } catch (error) {
    throw await withNextStep(project, data, error);
  }
}

function report(data: Migration) {
  return { data: migrationData('migrated', data), text: describeMigrated(data) };
}

/** The error with the state after it, and the next command. */
async function withNextStep(project: Project, { legacy }: Migration, error: unknown) {
  if (!(error instanceof TaskError) || error.code === 'not-restored') return error;
  const now = (await interruptedRun(migrationJourney(project)))?.committed
    ? 'what has started keeps running; resume: npm run migrate\nor roll back: npm run migrate -- --rollback'
    : `rolled back: ${legacy.service} is ${legacy.isRunning ? 'running' : 'stopped'} as before`;
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
  await confirmByName(`Roll back to ${data.legacy.service}?`, [data.legacy.service]);
  await undoSteps(journey, { ...data, rollsBack: true });
  return migrationStatus(project);
}
