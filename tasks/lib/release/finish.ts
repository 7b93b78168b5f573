// Finishing a release: after its commit point, by the run that made it or by the next one; and clearing away
// what never reached the commit point.
import { removeCandidates } from '../docker/candidate.ts';
import { readJournal } from '../journal.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import { isCommitted } from './interrupted.ts';
import { type PreparedRelease, type ReleaseJournal, releaseJournal } from './prepared.ts';
import { FINISH_STEPS } from './steps.ts';

/**
 * Does what follows the commit point, step by step, each made durable. With `deploy` the journal stays open:
 * the caller switches prod and then closes it.
 */
export async function finishRelease(project: Project, prepared: PreparedRelease): Promise<void> {
  const journal = releaseJournal(project);
  let known = prepared;
  const recordMerge = async (merge: { from: string; to: string }) => {
    known = { ...known, merge };
    await journal.record('merging', known);
  };
  for (const step of FINISH_STEPS) {
    if (!step.isWanted(known, project)) continue;
    await step.perform(project, known, recordMerge);
    await journal.record(step.name, known);
  }
  if (!prepared.deploy) await journal.close();
}

/** The deployment is over, well or not: nothing of the release is left to finish. */
export function closeRelease(project: Project): Promise<void> {
  return releaseJournal(project).close();
}

/** Clears what a release that never happened left behind. A failure here must not hide the first error. */
export async function abandonRelease(project: Project): Promise<void> {
  if (session.dryRun) return;
  try {
    const interrupted = await readJournal<ReleaseJournal>(project.root, 'release');
    if (interrupted && (await isCommitted(project, interrupted))) {
      log.warn(`${interrupted.data.tag} is released on this machine; the next run finishes what is left`);
      return;
    }
    await removeCandidates(project);
    await releaseJournal(project).close();
  } catch (error) {
    log.warn(`could not clear up after the release: ${(error as Error).message}`);
  }
}
