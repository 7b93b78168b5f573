// Which directories a backup reads and writes, on the engine's machine, and which image does it.
import { basename, dirname, resolve, sep } from 'node:path';
import { type Image, inspectImage } from '../docker/images.ts';
import { TaskError, usageError } from '../errors.ts';
import { dataDirectory, imageReference, type Project, variable } from '../project.ts';
import { newestRelease } from '../release/releases.ts';

/** The backup directory, absolute: .env beats release.toml. */
export function backupDirectory(project: Project): string {
  return resolve(project.root, variable(project, 'BACKUP_DIR') ?? project.backup.directory);
}

function isInside(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(outer.endsWith(sep) ? outer : outer + sep);
}

/** @throws TaskError (exit 2) where one directory lies in the other, or a name cannot be mounted */
export function verifyDirectories(project: Project): void {
  const [data, backups] = [dataDirectory(project), backupDirectory(project)];
  if (isInside(backups, data) || isInside(data, backups))
    throw usageError(`The backup directory ${backups} and the data directory ${data} lie in each other`, {
      code: 'config-invalid',
      hint: 'choose another [backup] directory: a restore swaps the whole data directory',
    });
  const odd = [data, backups].find((path) => /[:,"]/.test(path));
  if (odd)
    throw usageError(`${odd} cannot be mounted: its name has one of : , "`, { code: 'config-invalid' });
}

/** Directory and name of the data directory: a restore works beside it. */
export function dataPlace(project: Project): { parent: string; name: string } {
  const path = dataDirectory(project);
  return { parent: dirname(path), name: basename(path) };
}

export interface BackupImage {
  /** The image that has the program. */
  program: string;
  /** The release whose data this is; its name is part of an archive's. */
  version: string;
  /** The application's own image, undefined if it is not here. */
  app: Image | undefined;
  appReference: string;
}

/** The images of a backup. @throws TaskError when the one with the program is missing */
export async function backupImage(project: Project): Promise<BackupImage> {
  const tag = variable(project, 'PROD_TAG') ?? (await newestRelease(project)) ?? 'latest';
  const appReference = imageReference(project, tag);
  const app = await inspectImage(appReference);
  const program = project.backup.image ?? appReference;
  if (!project.backup.image ? app : await inspectImage(program))
    return { program, version: tag, app, appReference };
  throw new TaskError(`The image ${program} is not on this machine`, {
    code: 'image-missing',
    hint: project.backup.image
      ? `pull or build it: [backup] image in configs/release.toml names it`
      : `npm run build-push -- ${tag}   builds it`,
  });
}
