// Backs the data directory up while both environments write: one moment across all databases, proven before it
// counts. Also lists, verifies, prunes and restores archives, and installs a schedule.
//
// check → plan → show → confirm → apply → report. SQLite is opened inside a container of the released image
// only, so that it is the writers' kernel and user that open it, wherever the engine is.
import {
  BACKUP_TASK,
  type BackupImage,
  backupImage,
  CONTEXT_FLAG,
  confirm,
  describeDecisions,
  describeRestore,
  findArchive,
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
  recoverBackups,
  removeArchives,
  reportCreated,
  reportList,
  reportRestored,
  reportVerdicts,
  runTask,
  schedule,
  shortenLog,
  verifyArchives,
  verifyBackupFlags,
  verifyDirectories,
  verifyPolicy,
  withHistory,
  withLockWithin,
  withRestoreSession,
} from './lib/mod.ts';

const COMMANDS = ['create', 'list', 'verify', 'restore', 'prune', 'schedule'] as const;
type Command = (typeof COMMANDS)[number];

const FLAGS = {
  ...CONTEXT_FLAG,
  pause: { type: 'boolean', description: 'create: freeze the containers while files are copied' },
  rehearse: { type: 'boolean', description: 'create: start the released image on the new archive' },
  all: { type: 'boolean', description: 'verify: every archive' },
  to: { type: 'string', value: 'DIR', description: 'restore: to a new directory, touching nothing else' },
  wait: { type: 'string', value: 'SECONDS', description: 'wait for another task to end' },
  every: { type: 'string', value: 'WHEN', description: 'schedule: hourly, daily (default), weekly or HH:MM' },
  kind: { type: 'string', value: 'KIND', description: 'schedule: systemd, crontab or launchd' },
  install: { type: 'boolean', description: 'schedule: install it' },
  uninstall: { type: 'boolean', description: 'schedule: take it away' },
} as const;

await runTask({
  name: 'backup',
  summary: 'Consistent, proven backups while both environments write; and bringing them back.',
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
    return withLockWithin(project.root, 'backup', Number(flags.wait ?? 0), async () => {
      await recoverBackups(project);
      if (command === 'create') return create(project, flags);
      const image = await backupImage(project);
      switch (command) {
        case 'list':
          return reportList(project, await listArchives(project, image));
        case 'verify':
          return verify(project, image, flags.all ? undefined : (positionals[1] ?? 'latest'));
        case 'prune':
          return prune(project, image);
        case 'restore':
          return restore(project, image, { archive: positionals[1] ?? 'latest', to: flags.to });
      }
    });
  },
});

async function create(project: Project, flags: { pause: boolean; rehearse: boolean }) {
  const phases: Phases = {};
  const details = { from: null, to: null as string | null, phases };
  // Without a question: nothing that is there changes but archives that no rule keeps.
  const result = await withHistory(project.root, BACKUP_TASK, details, async () => {
    await shortenLog(project);
    const options = { pause: flags.pause, rehearse: flags.rehearse || project.backup.rehearse };
    const backup = await performBackup(project, options, phases);
    details.to = backup.created?.archive ?? null;
    return backup;
  });
  logPhases(phases);
  return reportCreated(project, result, phases);
}

async function verify(project: Project, image: BackupImage, archive: string | undefined) {
  const place = archive === undefined ? undefined : await findArchive(project, image, archive);
  return reportVerdicts(await verifyArchives(project, image, place));
}

async function prune(project: Project, image: BackupImage) {
  verifyPolicy(project);
  const { archives } = await listArchives(project, image);
  const decisions = planRetention(archives, project.backup.keep);
  const going = decisions.filter(({ keep }) => !keep).map(({ archive }) => archive);
  log.info(describeDecisions(decisions));
  if (going.length === 0) return { data: { decisions, removed: [] }, text: 'Nothing to remove.' };
  await confirm(`Remove ${going.length} of ${decisions.length} archives?`);
  const removed = await withHistory(project.root, 'backup-prune', { from: null, to: null }, () =>
    removeArchives(project, image, going.sort()),
  );
  return { data: { decisions, removed }, text: `Removed ${removed.length} archives.` };
}

async function restore(
  project: Project,
  image: BackupImage,
  wanted: { archive: string; to: string | undefined },
) {
  return withRestoreSession(project, image, wanted, async (session) => {
    const archive = await findArchive(project, image, wanted.archive, session.program);
    const plan = await planRestore(project, image, archive, wanted.to, session);
    log.info(describeRestore(project, plan));
    await confirm('Restore it?');
    const phases: Phases = {};
    const details = { from: plan.archive.name, to: wanted.to ?? null, phases };
    const result = await withHistory(project.root, 'backup-restore', details, () =>
      performRestore(project, image, plan, phases),
    );
    logPhases(phases);
    return reportRestored(plan, result, phases);
  });
}
