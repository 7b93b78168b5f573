// What an earlier run began: looked for by every run, and settled by code that is loaded only then, since it is rare.
import { readJournal } from '../journal.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import type { PreparedRelease, ReleaseJournal, ResumeOptions } from './prepared.ts';
import type { PreparedUndo } from './undo-run.ts';

/**
 * The release whose commit point was passed by a run that then died; what did not get there is cleared away.
 * Asked-for options come on top of those of the run that died. Undefined when there is nothing to finish.
 */
export async function interruptedRelease(
  project: Project,
  options: ResumeOptions,
): Promise<PreparedRelease | undefined> {
  const interrupted = await readJournal<ReleaseJournal>(project.root, 'release');
  if (!interrupted || session.dryRun) return undefined;
  const { settleInterrupted } = await import('./interrupted.ts');
  return settleInterrupted(project, interrupted, options);
}

/** Completes an undoing that a run began and did not end. */
export async function resumeUndo(project: Project): Promise<void> {
  const begun = await readJournal<PreparedUndo>(project.root, 'undo');
  if (!begun || session.dryRun) return;
  const { data, step, at } = begun;
  log.step(`finishing the undoing of ${data.tag}, interrupted at ${at} after "${step}"`);
  const { finishUndo } = await import('./undo-run.ts');
  await finishUndo(project, data);
}
