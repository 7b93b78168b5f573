// The archives that are there: asked of the program, since only the engine's machine can see them.
import { basename, dirname, resolve } from 'node:path';
import { TaskError, usageError } from '../errors.ts';
import type { Project } from '../project.ts';
import {
  askProgram,
  BACKUPS,
  type BackupImage,
  backupDirectory,
  type Listed,
  Listing,
  type ProgramSession,
  Removed,
  runProgram,
  type Verdict,
  Verdicts,
} from './program.ts';

/** What every call on the backup directory has in common; it works also when the data is lost. */
export function placesOf(project: Project) {
  return {
    mounts: { [BACKUPS]: backupDirectory(project) },
    options: { backups: BACKUPS, project: project.project.name },
  };
}

/** All archives, oldest first, and the bytes that are free beside them. */
export async function listArchives(project: Project, image: BackupImage, within?: ProgramSession) {
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
  const { mounts, options } = placesOf(project);
  const call = { image: image.program, command: 'remove', options: { ...options, archives }, mounts, within };
  return (await runProgram(project, call, Removed))?.removed ?? [];
}

export function isProven({ record }: Listed): boolean {
  return record !== null && record.proof !== null;
}

export type { Listed, Verdict };

// Verifying archives: of the backup directory by name, where the outcome is recorded, or a file anywhere.

/** Where an archive that a user named lies: in the backup directory, or by a path of its own. */
export interface ArchivePlace {
  directory: string;
  name: string;
  isOurs: boolean;
}

/** A word without a slash is a name in the backup directory. */
export const isPath = (given: string) => given.includes('/');

/** Where an archive is looked for. */
export function archiveDirectory(project: Project, given: string): string {
  return isPath(given) ? dirname(resolve(given)) : backupDirectory(project);
}

/** `latest` is the newest proven one. */
export async function findArchive(
  project: Project,
  image: BackupImage,
  given: string,
  within?: ProgramSession,
): Promise<ArchivePlace> {
  const directory = archiveDirectory(project, given);
  if (isPath(given))
    return { directory, name: basename(resolve(given)), isOurs: directory === backupDirectory(project) };
  const { archives } = await listArchives(project, image, within);
  const found =
    given === 'latest' ? archives.findLast(isProven) : archives.find(({ archive }) => archive === given);
  if (found) return { directory, name: found.archive, isOurs: true };
  const newest = archives.slice(-3).map(({ archive }) => archive);
  throw usageError(
    `There is no ${given === 'latest' ? 'proven archive' : `archive ${given}`} in ${directory}`,
    {
      code: 'no-archive',
      hint: newest.length > 0 ? `there are: ${newest.join(', ')}` : 'make one: npm run backup',
    },
  );
}

/** Reads archives back; `place` undefined means all of them. Damage is in the verdicts, not thrown. */
export async function verifyArchives(
  project: Project,
  image: BackupImage,
  place: ArchivePlace | undefined,
): Promise<Verdict[]> {
  const { mounts, options } = placesOf(project);
  const call = {
    image: image.program,
    mounts,
    command: 'verify',
    options: { ...options, archives: null as string[] | null },
  };
  if (place?.isOurs) call.options.archives = [place.name];
  const elsewhere = place && !place.isOurs ? place : undefined;
  const request = elsewhere
    ? {
        ...call,
        command: 'verify-file',
        options: { ...options, path: `/archive/${elsewhere.name}` },
        mounts: { ...mounts, '/archive': `${elsewhere.directory}:ro` },
        asRoot: true,
      }
    : call;
  return (await runProgram(project, request, Verdicts))?.verdicts ?? [];
}
