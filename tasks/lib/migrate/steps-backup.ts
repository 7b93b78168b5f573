// The backup, by the backup task's own code, and what every database holds at that moment: the figures that the
// migration is verified by in the end.
import { mkdir, readFile, rm } from 'node:fs/promises';
import { performBackup } from '../backup/create.ts';
import { backupDirectory, verifyDirectories } from '../backup/places.ts';
import { recoverBackups } from '../backup/recover.ts';
import { replaceFile } from '../files.ts';
import type { Phases } from '../phases.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import { bindMount, containerUser, type Inventory, runProgram } from './container.ts';
import { keptPath } from './kept-files.ts';
import { evidenceOfStep, type Step, type StepContext } from './step.ts';
import { tellWholeTask } from './whole-task.ts';

/** Seconds. */
const ONE_DAY = 86_400;

interface BackupEvidence extends Record<string, unknown> {
  archive: string;
  seconds: number;
}

/** Archive and proof by the backup task's own code; beside it, what every database holds is written down. */
export const backup: Step = {
  name: 'backup',
  apply: async (context): Promise<BackupEvidence> => {
    const { project, recorder } = context;
    if (session.dryRun) {
      tellWholeTask('backup', 'create');
      return { archive: '<archive>', seconds: 0 };
    }
    const began = performance.now();
    const phases: Phases = {};
    verifyDirectories(project);
    await recoverBackups(project);
    const [made] = await Promise.all([
      performBackup(withoutWriters(project), { pause: false, rehearse: false }, phases),
      writeInventory(project, recorder.record.id, recorder.record.plan.data.to, stoppedAt(context)),
    ]);
    const archive = `${backupDirectory(project)}/${made.created?.archive ?? '<archive>'}`;
    return { archive, seconds: Math.round(performance.now() - began) / 1000 };
  },
  // An archive is never in the way.
  undo: async () => {},
};

/** Nobody waits while both services are stopped: a large database in rollback-journal mode may take its time. */
function withoutWriters(project: Project): Project {
  return { ...project, backup: { ...project.backup, max_block: ONE_DAY } };
}

/** From then on nobody but the new service's clients can have written. */
export function stoppedAt(context: StepContext): string {
  return (
    evidenceOfStep<{ stoppedAt: string }>(context, 'stop').stoppedAt ?? context.recorder.record.startedAt
  );
}

async function writeInventory(project: Project, id: string, path: string, since: string): Promise<void> {
  const found = await takeInventory(project, path, { since });
  if (!found) return;
  const folder = keptPath(project.root, id);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await replaceFile(`${folder}/inventory.json`, JSON.stringify(found), { mode: 0o600 });
}

/** `known`: looks only at what that inventory has. */
export function takeInventory(project: Project, path: string, options: { since: string; known?: Inventory }) {
  const mounts = [bindMount(path, '/data', 'writable')];
  return runProgram<Inventory>(project, {
    command: 'inventory',
    options,
    mounts,
    user: containerUser(project),
  });
}

export async function readInventory(root: string, id: string): Promise<Inventory> {
  return JSON.parse(await readFile(`${keptPath(root, id)}/inventory.json`, 'utf8')) as Inventory;
}

/** Removes our bookkeeping of one migration. */
export function forget(root: string, id: string): Promise<void> {
  return rm(keptPath(root, id), { recursive: true, force: true });
}
