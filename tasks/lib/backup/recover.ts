// What every backup command does first: what a killed one left frozen is thawed, what it left half-restored is
// finished or undone.
import type { Project } from '../project.ts';
import { thawLeftovers } from './freeze.ts';
import { resumeRestore } from './restore.ts';

/** Call it holding the lock. */
export async function recoverBackups(project: Project): Promise<'finished' | 'undone' | undefined> {
  await thawLeftovers(project);
  return resumeRestore(project);
}
