// A switch that was killed: looked for by every run, and repaired by code that is loaded only then, since it is rare.
import type { TaskError } from '../errors.ts';
import { withLock } from '../lock.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { unfinishedSwitch } from './record.ts';

/**
 * Repairs an unfinished switch, under the project's lock; says what it did. False if there was none.
 * Reload the project after a true: .env may have changed. @throws TaskError if it cannot
 */
export async function repairSwitch(project: Project): Promise<boolean> {
  const entry = await unfinishedSwitch(project.root);
  if (!entry) return false;
  const { repair } = await import('./repair.ts');
  await repair(project, entry);
  return true;
}

/** The same for a task that does not hold the lock; leaves a switch alone that is under way. */
export async function repairIfUnfinished(project: Project): Promise<boolean> {
  if (!(await unfinishedSwitch(project.root))) return false;
  try {
    return await withLock(project.root, 'switch-env', () => repairSwitch(project));
  } catch (error) {
    if ((error as TaskError).code !== 'locked') throw error;
    log.info('A switch is under way.');
    return false;
  }
}
