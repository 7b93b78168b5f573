// From the older single-service setup to dev and prod on one host, and back.
//
// check → plan → show → confirm → apply → report. Every step is written down before and after: a run that dies
// is continued by the next one, or undone by --rollback. The old data is never written to.
import {
  confirm,
  describedLegacy,
  describePieces,
  describePlan,
  loadProject,
  log,
  logPhases,
  migrateBack,
  migrateForward,
  migrationData,
  newRecord,
  nothingFound,
  oldPieces,
  type Phases,
  type Project,
  prepareMigration,
  Recorder,
  readRecord,
  removeOldPieces,
  runTask,
  seconds,
  summary,
  told,
  verifyFinish,
  verifyMigrateFlags,
  verifyRollback,
  withHistory,
  withLock,
} from './lib/mod.ts';

type Stored = NonNullable<Awaited<ReturnType<typeof readRecord>>>;

await runTask({
  name: 'migrate',
  summary: 'From the older single-service setup to dev and prod, and back.',
  flags: {
    from: {
      type: 'string',
      value: 'PATH',
      description: 'its compose file, or the folder of it; default: found',
    },
    status: { type: 'boolean', description: 'say where the migration stands' },
    rollback: { type: 'boolean', description: 'bring the old service back, with its data as it was' },
    'keep-new-data': { type: 'boolean', description: 'with --rollback: its data as it is now' },
    finish: { type: 'boolean', description: 'remove the old pieces, after the grace period' },
  },
  examples: [
    'npx tsx tasks/migrate.ts --dry-run',
    'npx tsx tasks/migrate.ts --from ~/pi-rag/docker-compose.mcp.yml',
    'npx tsx tasks/migrate.ts --rollback --keep-new-data',
  ],
  run: async ({ flags }) => {
    const { status, rollback, finish, from } = flags;
    verifyMigrateFlags(flags);
    const project = await loadProject();
    if (status) return told(await readRecord(project.root));
    return withLock(project.root, 'migrate', async () => {
      const stored = await readRecord(project.root);
      if (finish) return removeOld(project, stored);
      if (rollback || stored?.record.state === 'rolling-back')
        return goBack(project, stored, flags['keep-new-data']);
      if (stored?.record.state === 'migrating') return goOn(project, stored);
      if (stored?.record.state === 'migrated') return told(stored);
      return begin(project, from);
    });
  },
});

async function begin(project: Project, from: string | undefined) {
  const description = describedLegacy(project);
  const prepared = await prepareMigration(project, description, from);
  if (!prepared) {
    return { data: { state: 'none', found: false }, text: nothingFound(description) };
  }
  log.info(describePlan(prepared, prepared.settings));
  await confirm(`Migrate from ${prepared.legacy.service}?`);
  const recorder = new Recorder(project.root, newRecord(prepared.legacy, prepared.plan, new Date()));
  await recorder.note('begun', () => {});
  return forward(project, recorder);
}

async function goOn(project: Project, stored: Stored) {
  log.info(told(stored).text);
  await confirm('Go on with this migration?');
  return forward(project, new Recorder(project.root, stored.record));
}

async function forward(project: Project, recorder: InstanceType<typeof Recorder>) {
  const began = performance.now();
  const phases: Phases = {};
  const { legacy } = recorder.record;
  await withHistory(project.root, 'migrate', { from: legacy.service, to: 'both', phases }, () =>
    migrateForward({ project, description: describedLegacy(project), recorder, phases }),
  );
  logPhases(phases);
  return {
    data: { ...migrationData(recorder.record), seconds: seconds(began), phases },
    text: summary(recorder.record),
  };
}

async function goBack(project: Project, stored: Stored | undefined, keepNewData: boolean) {
  if (!stored || stored.record.state === 'rolled-back') {
    const { data, text } = told(stored);
    return { data: { ...data, changed: false }, text: `Nothing to go back from. ${text}` };
  }
  const { record } = stored;
  await verifyRollback(record);
  const keep = record.state === 'rolling-back' ? record.keepNewData : keepNewData;
  log.info(
    `Go back to ${record.legacy.service}, with its data as it ${keep ? 'is now' : 'was at the migration'}.`,
  );
  await confirm('Go back?');
  const recorder = new Recorder(project.root, record);
  await recorder.note('rollback-begun', (draft) => {
    draft.state = 'rolling-back';
    draft.keepNewData = keep;
  });
  const phases: Phases = {};
  await withHistory(project.root, 'migrate', { from: 'both', to: record.legacy.service, phases }, () =>
    migrateBack({ project, description: describedLegacy(project), recorder, phases }),
  );
  logPhases(phases);
  const { data, text } = told(recorder);
  return { data: { ...data, phases }, text };
}

async function removeOld(project: Project, stored: Stored | undefined) {
  const record = stored?.record;
  if (record?.state === 'finished') return told(stored);
  const migrated = verifyFinish(describedLegacy(project), record, new Date());
  const pieces = await oldPieces(migrated);
  log.info(
    ['After this there is no way back:', ...describePieces(pieces).map((line) => `  - ${line}`)].join('\n'),
  );
  await confirm('Remove the old pieces?');
  const recorder = new Recorder(project.root, migrated);
  await removeOldPieces(project, recorder, pieces);
  return told(recorder);
}
