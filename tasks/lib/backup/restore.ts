// A restore from beginning to end, journaled: unpack and prove beside, stop, back up what is there, swap whole
// directories, start, prove. Whatever fails, everything is put back.
import { TaskError } from '../errors.ts';
import { uninterrupted } from '../interrupt.ts';
import { openJournal, readJournal } from '../journal.ts';
import { log } from '../log.ts';
import { type Phases, timed } from '../phases.ts';
import { loadProject, type Project } from '../project.ts';
import { session } from '../session.ts';
import { repairSwitch } from '../switch/unfinished.ts';
import { createArchive } from './create.ts';
import type { BackupImage } from './places.ts';
import type { RestorePlan } from './restore-plan.ts';
import { RESTORE_JOURNAL, type RestoreRecord, type RestoreStep, remedy } from './restore-record.ts';
import { stopLeftover } from './restore-session.ts';
import {
  finishSwap,
  putBack,
  type Restoring,
  startRestored,
  stopRunning,
  swapBack,
  swapIn,
  unpackBeside,
} from './restore-steps.ts';

export interface RestoreResult {
  /** The archive of what was there before; null if there was nothing, or it could not be backed up. */
  before: string | null;
  /** The name under which the previous directory stays, when no backup could be made of it. */
  kept: string | null;
}

/** Backs up what is there. Damaged data must not stop its own restore: then the directory itself is kept. */
async function backUpPresent(
  project: Project,
  image: BackupImage,
  record: RestoreRecord,
): Promise<string | null> {
  try {
    return (await createArchive(project, image, { pause: false }))?.archive ?? null;
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const stamp = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
    record.keepAs = `${record.current}.before-restore-${stamp}`;
    log.warn(`what is there could not be backed up, so it is kept as ${record.keepAs}: ${error.message}`);
    return null;
  }
}

async function undo(restoring: Restoring, step: RestoreStep): Promise<void> {
  if (step === 'unpack') await swapBack(restoring);
  else await putBack(restoring);
  await openJournal(restoring.project.root, RESTORE_JOURNAL).close();
}

/** Carries a plan out. @throws TaskError after putting everything back */
export async function performRestore(
  project: Project,
  image: BackupImage,
  plan: RestorePlan,
  phases: Phases,
): Promise<RestoreResult> {
  const journal = openJournal<RestoreRecord>(project.root, RESTORE_JOURNAL);
  const { record } = plan;
  const restoring = { project, record, within: plan.session.program };
  let current: RestoreStep = 'unpack';
  let before: string | null = null;
  const step = async (name: RestoreStep, work: () => Promise<unknown>) => {
    current = name;
    await journal.record(name, record);
    await timed(phases, name, work);
  };
  try {
    await step('unpack', () => unpackBeside(restoring, plan.archive));
    if (record.running.length > 0) await step('stop', () => stopRunning(record.running));
    if (plan.to === undefined && plan.present.files > 0) {
      await step('backup', async () => {
        before = await backUpPresent(project, image, record);
      });
    }
    await step('swap', () => uninterrupted(() => swapIn(restoring)));
    await step('start', () => startRestored(project, record));
  } catch (error) {
    await uninterrupted(() => undo(restoring, current)).catch((cause: unknown) =>
      stuck(record, error, cause),
    );
    throw error;
  }
  await uninterrupted(() => step('finish', () => finishSwap(restoring)));
  await journal.close();
  return { before, kept: record.keepAs };
}

function stuck({ parent, current, previous }: RestoreRecord, error: unknown, cause: unknown): never {
  const message = (reason: unknown) => (reason instanceof Error ? reason.message : String(reason));
  throw new TaskError(`${message(error)}\nand putting everything back failed: ${message(cause)}`, {
    code: 'not-put-back',
    hint: `run any backup command again; by hand: in ${parent}, rename ${previous} (if it is there) to ${current}`,
    cause,
  });
}

/** Finishes or undoes a restore that died. Returns what was done, undefined if there was none. */
export async function resumeRestore(project: Project): Promise<'finished' | 'undone' | undefined> {
  const entry = await readJournal<RestoreRecord>(project.root, RESTORE_JOURNAL);
  if (!entry) return undefined;
  const { data: record, step } = entry;
  const restoring = { project, record };
  const journal = openJournal<RestoreRecord>(project.root, RESTORE_JOURNAL);
  log.warn(`a restore of ${record.archive} died at "${step}" (${entry.at})`);
  if (session.dryRun) return undefined;
  await stopLeftover(record);
  if (record.prodTag !== null) await repairSwitch(project);
  const todo = remedy(step);
  try {
    if (todo === 'start') await startRestored(await loadProject(project.root), record);
    if (todo !== 'undo') {
      await journal.record('finish', record);
      await finishSwap(restoring);
      await journal.close();
      log.done('the restore is finished');
      return 'finished';
    }
  } catch (error) {
    if (!(error instanceof TaskError) || todo === 'finish') throw error;
    log.warn(`the restored data does not serve: ${error.message}`);
  }
  await uninterrupted(() => undo(restoring, step === 'unpack' ? 'unpack' : 'swap'));
  log.done('the restore is undone; everything is as it was before it');
  return 'undone';
}
