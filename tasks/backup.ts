// Backs up what prod writes to while both environments run: one snapshot across all databases, verified before it counts.
// Also lists, verifies, prunes and restores archives, and installs a schedule.
//
// check → plan → show → confirm → apply → report. SQLite is opened inside a container only, so that it is the writers'
// kernel and user that open it, wherever the engine is.
import {
  BACKUP_TASK,
  CONTEXT_FLAG,
  confirm,
  confirmByName,
  describeDecisions,
  describeMissing,
  describeRestore,
  findArchive,
  type HistoryDetails,
  listArchives,
  loadProject,
  log,
  logPhases,
  type Phases,
  type Project,
  performBackup,
  performRestore,
  planRestore,
  planRetention,
  removeArchives,
  reportCreated,
  reportList,
  reportRestored,
  reportVerdicts,
  resumeRestore,
  runTask,
  schedule,
  verifyArchives,
  verifyBackupFlags,
  verifyDirectories,
  verifyPolicy,
  withHistory,
  withLockWithin,
} from './lib/mod.ts';

const COMMANDS = ['create', 'list', 'verify', 'restore', 'prune', 'schedule'] as const;
type Command = (typeof COMMANDS)[number];

const FLAGS = {
  ...CONTEXT_FLAG,
  rehearse: { type: 'boolean', description: 'create: start the released image on the new archive' },
  all: { type: 'boolean', description: 'verify: every archive' },
  to: { type: 'string', value: 'DIR', description: 'restore: into a new directory; nothing else changes' },
  wait: { type: 'string', value: 'SECONDS', description: 'wait for another task to end' },
  every: { type: 'string', value: 'WHEN', description: 'schedule: hourly, daily (default), weekly or HH:MM' },
  install: { type: 'boolean', description: 'schedule: add it to the crontab' },
  uninstall: { type: 'boolean', description: 'schedule: remove it from the crontab' },
} as const;

await runTask({
  name: 'backup',
  summary: 'Back up and restore the data: verified snapshots while both environments run.',
  arguments: `[${COMMANDS.join('|')}] [ARCHIVE]`,
  maxArguments: 2,
  choices: COMMANDS,
  flags: FLAGS,
  examples: [
    'npm run backup',
    'npm run backup -- verify --all',
    'npm run backup -- restore latest --to /tmp/drill',
    'npm run backup -- schedule --install',
  ],
  run: async ({ flags, positionals }) => {
    const command = (positionals[0] ?? 'create') as Command;
    verifyBackupFlags(command, flags, positionals[1]);
    const project = await loadProject();
    if (command === 'schedule') return schedule(project, flags);
    verifyDirectories(project);
    if (command === 'list') return reportList(project, await listArchives(project));
    return withLockWithin(project.root, 'backup', Number(flags.wait ?? 0), async () => {
      await resumeRestore(project);
      switch (command) {
        case 'create':
          return create(project, flags);
        case 'verify':
          return verify(project, flags.all ? undefined : (positionals[1] ?? 'latest'));
        case 'prune':
          return prune(project);
        case 'restore':
          return restore(project, positionals[1] ?? 'latest', flags.to);
      }
    });
  },
});

async function create(project: Project, flags: { rehearse: boolean }) {
  const phases: Phases = {};
  const details: HistoryDetails = { from: null, to: null, phases };
  // Without a question: nothing that is there changes but archives that no rule keeps.
  const result = await withHistory(project.root, BACKUP_TASK, details, async () => {
    const backup = await performBackup(
      project,
      { rehearse: flags.rehearse || project.backup.rehearse },
      phases,
    );
    const { archive = null, missing = [] } = backup.created ?? {};
    details.to = archive;
    if (missing.length > 0)
      Object.assign(details, { outcome: 'incomplete', error: describeMissing(missing) });
    return backup;
  });
  logPhases(phases);
  return reportCreated(project, result, phases);
}

async function verify(project: Project, archive: string | undefined) {
  const place = archive === undefined ? undefined : await findArchive(project, archive);
  return reportVerdicts(await verifyArchives(project, place));
}

async function prune(project: Project) {
  verifyPolicy(project);
  const { archives } = await listArchives(project);
  const decisions = planRetention(archives, project.backup.keep);
  const going = decisions.filter(({ keep }) => !keep).map(({ archive }) => archive);
  log.plan(describeDecisions(decisions));
  if (going.length === 0) return { data: { decisions, removed: [] }, text: 'Nothing to remove.' };
  await confirmByName(`Remove ${going.length} of ${decisions.length} archives?`, ['prune']);
  const removed = await withHistory(project.root, 'backup-prune', { from: null, to: null }, () =>
    removeArchives(project, going.sort()),
  );
  return { data: { decisions, removed }, text: `Removed ${removed.length} archives.` };
}

async function restore(project: Project, wanted: string, to: string | undefined) {
  const plan = await planRestore(project, await findArchive(project, wanted), to);
  log.plan(describeRestore(project, plan, wanted));
  const { name } = plan.archive;
  if (plan.restore?.replaces)
    await confirmByName(
      `Restore ${name} over the live data?`,
      [name, wanted],
      'The live data is backed up first: restoring that backup undoes this.',
    );
  else await confirm(`Restore ${name} to ${to ?? 'the data directory, which is empty'}?`);
  return reportRestored(plan, await performRestore(project, plan));
}
