// The archives that are there: asked of the program, since only the engine's machine can see them.
import { TaskError } from '../errors.ts';
import type { Project } from '../project.ts';
import { type BackupImage, backupDirectory } from './places.ts';
import { askProgram, runProgram } from './program.ts';
import { BACKUPS } from './program-command.ts';
import type { Listed, Verdict } from './program-schema.ts';
import type { ProgramSession } from './program-session.ts';

/** What every call on the backup directory has in common; it works also when the data is lost. */
export function placesOf(project: Project) {
  return {
    mounts: { [BACKUPS]: backupDirectory(project) },
    options: { backups: BACKUPS, project: project.project.name },
  };
}

/** All archives, oldest first, and the bytes that are free beside them. */
export async function listArchives(project: Project, image: BackupImage, within?: ProgramSession) {
  const { Listing } = await import('./program-schema.ts');
  const { mounts, options } = placesOf(project);
  try {
    const call = { image: image.program, command: 'list', options, mounts, within };
    return await askProgram(project, call, Listing);
  } catch (error) {
    // Before the first backup there is no directory.
    if (error instanceof TaskError && error.code === 'no-directory') return { archives: [], free: 0 };
    throw error;
  }
}

/** Removes archives of ours; the program refuses any other. Nothing under --dry-run. */
export async function removeArchives(
  project: Project,
  image: BackupImage,
  archives: readonly string[],
  within?: ProgramSession,
) {
  const { Removed } = await import('./program-schema.ts');
  const { mounts, options } = placesOf(project);
  const call = { image: image.program, command: 'remove', options: { ...options, archives }, mounts, within };
  return (await runProgram(project, call, Removed))?.removed ?? [];
}

export function isProven({ record }: Listed): boolean {
  return record !== null && record.proof !== null;
}

export type { Listed, Verdict };
