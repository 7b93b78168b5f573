// The one container that carries a restore out, from the look at the archive to the end. It is found again by its
// name: a restore that is killed leaves it at work for a moment.
import { randomBytes } from 'node:crypto';
import { basename, dirname, resolve } from 'node:path';
import { probe } from '../command.ts';
import { docker } from '../docker/client.ts';
import { usageError } from '../errors.ts';
import { dataDirectory, type Project } from '../project.ts';
import { type BackupImage, backupDirectory, dataPlace } from './places.ts';
import { BACKUPS } from './program-command.ts';
import { type ProgramSession, withSession } from './program-session.ts';
import { PLACE, type RestoreRecord } from './restore-record.ts';
import { archiveDirectory, isPath } from './verify.ts';

export interface RestoreSession {
  program: ProgramSession;
  /** Part of every name that this restore gives. */
  id: string;
  /** Name of the container. */
  container: string;
  /** Directory on the engine's machine, and the name in it to which is restored. */
  parent: string;
  name: string;
}

/** Where the restore goes. @throws TaskError (exit 2) */
function placeFor(project: Project, to: string | undefined): { parent: string; name: string } {
  if (to === undefined) return dataPlace(project);
  const path = resolve(to);
  if (path === dataDirectory(project))
    throw usageError('--to names the data directory itself', { hint: 'leave --to out to restore in place' });
  return { parent: dirname(path), name: basename(path) };
}

/** Runs `work` with the container of a restore of `archive`, as the user named it. */
export function withRestoreSession<T>(
  project: Project,
  image: BackupImage,
  { archive, to }: { archive: string; to: string | undefined },
  work: (session: RestoreSession) => Promise<T>,
): Promise<T> {
  const { parent, name } = placeFor(project, to);
  const id = randomBytes(4).toString('hex');
  const container = `${project.project.name}-restore-${id}`;
  const mounts = {
    ...(isPath(archive) ? {} : { [BACKUPS]: `${backupDirectory(project)}:ro` }),
    '/archive': `${archiveDirectory(project, archive)}:ro`,
    [PLACE]: parent,
  };
  return withSession(project, { image: image.program, name: container, mounts, asRoot: true }, (program) =>
    work({ program, id, container, parent, name }),
  );
}

/** Whatever a killed restore's container is still doing, it stops: any of it may be half-done. */
export async function stopLeftover({ container }: RestoreRecord): Promise<void> {
  if (container !== undefined) await probe(docker('rm', '--force', container));
}
