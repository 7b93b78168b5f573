// A release that an earlier run began and did not end: past its commit point it is finished, else cleared away.
import { removeCandidates } from '../docker/candidate.ts';
import { uninterrupted } from '../interrupt.ts';
import type { JournalEntry } from '../journal.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { clearWorkDirectories } from '../work-directory.ts';
import { isHighestStable } from './highest-stable.ts';
import {
  isPrepared,
  type PreparedRelease,
  type ReleaseJournal,
  type ResumeOptions,
  releaseJournal,
} from './prepared.ts';
import { removeStaleLocks, settleRefs } from './refs.ts';

export async function isCommitted(
  project: Project,
  { data }: JournalEntry<ReleaseJournal>,
): Promise<boolean> {
  return isPrepared(data) && (await settleRefs(project.root, { ...data, to: data.commit }));
}

/** What is left of it to finish; undefined where it never reached the commit point, and is now cleared away. */
export async function settleInterrupted(
  project: Project,
  interrupted: JournalEntry<ReleaseJournal>,
  options: ResumeOptions,
): Promise<PreparedRelease | undefined> {
  const { data, step, at } = interrupted;
  return uninterrupted(async () => {
    await clearWorkDirectories(project.root);
    if (isPrepared(data)) {
      const refs = [`refs/heads/${data.branch}`, `refs/tags/${data.tag}`];
      await removeStaleLocks(project.root, refs, new Date(at));
    }
    if (!isPrepared(data) || !(await isCommitted(project, interrupted))) {
      log.warn(`clearing away ${data.tag}, interrupted at ${at} before it was released`);
      await removeCandidates(project);
      await releaseJournal(project).close();
      return undefined;
    }
    log.step(`finishing ${data.tag}, interrupted at ${at} after "${step}"`);
    return {
      ...data,
      push: data.push || options.push,
      deploy: data.deploy || options.deploy,
      movesLatest: data.movesLatest && (await isHighestStable(project, data)),
    };
  });
}
