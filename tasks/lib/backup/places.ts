// What a backup reads and where it writes, on the engine's machine: everything that prod writes to, as prod mounts it. The
// data directory of the configuration is compared with prod's mounts: a backup of another directory would look as good.
import { realpath } from 'node:fs/promises';
import { resolve, sep } from 'node:path';
import { resolvedModel } from '../docker/compose.ts';
import { inspectVolume, type Mount, projectContainers } from '../docker/objects.ts';
import { usageError } from '../errors.ts';
import { log } from '../log.ts';
import { dataDirectory, type Project, variable, variableName } from '../project.ts';
import { session } from '../session.ts';

/** Where the backup program finds the backup directory, the directory of an archive, and the places. */
export const BACKUPS = '/backups';
export const ARCHIVE = '/archive';
export const PLACES = '/places';

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
    throw usageError(
      `The backup directory ${backups} and the data directory ${data} must not contain each other`,
      {
        code: 'config-invalid',
        hint: 'choose another [backup] directory: a restore replaces everything in the data directory',
      },
    );
  const odd = [data, backups].find((path) => path.includes(':'));
  if (odd) throw usageError(`${odd} cannot be mounted: its name has a colon`, { code: 'config-invalid' });
}

/** Name in the archive (`data`, `volumes/app-uploads`) → directory, or name of a volume. */
export type Places = Record<string, string>;

/** Docker Desktop shows the directories of a Mac below this one. */
const DESKTOP_PREFIX = /^\/host_mnt(?=\/)/;

/** What prod can write to: its running container tells, else the compose files. */
async function prodMounts(project: Project): Promise<Mount[]> {
  const { service } = project.environments.prod;
  const containers = await projectContainers(project);
  const running = containers.find((one) => one.service === service && one.state === 'running');
  const mounts = running
    ? running.mounts.filter(({ target }) => !running.anonymousVolumes.includes(target))
    : await modelMounts(project, service);
  return mounts.filter(({ type, source, isReadOnly }) => {
    const isKept = (type === 'bind' || type === 'volume') && source !== '' && !isReadOnly;
    return isKept && !source.endsWith('.sock');
  });
}

async function modelMounts(project: Project, service: string): Promise<Mount[]> {
  const { services, volumes } = await resolvedModel(project, variable(project, 'PROD_TAG'));
  return (services[service]?.volumes ?? []).map(({ type, source = '', target, read_only = false }) => {
    const { name = source } = (volumes?.[source] ?? {}) as { name?: string };
    return { type, source: type === 'volume' ? name : source, target, isReadOnly: read_only };
  });
}

async function samePath(one: string, other: string): Promise<boolean> {
  if (one === other || session.context) return one === other;
  const [a, b] = await Promise.all([one, other].map((path) => realpath(path).catch(() => path)));
  return a === b;
}

/** What is backed up and restored. @throws TaskError (exit 2) where prod writes to another directory than is configured */
export async function backupPlaces(project: Project): Promise<Places> {
  const data = dataDirectory(project);
  const mounts = await prodMounts(project);
  const places: Places = {};
  for (const { type, source, target } of mounts) {
    const path = type === 'bind' ? source.replace(DESKTOP_PREFIX, '') : source;
    // In parts, too.
    if (type === 'bind' && (isInside(path, data) || (await samePath(path, data)))) places.data = data;
    else places[`volumes/${target.replace(/^\/+/, '').replaceAll('/', '-')}`] = path;
  }
  if (places.data) return places;
  const writes = mounts.map(({ source, target }) => `${source} (at ${target})`).join(', ') || 'nothing';
  const message = `Prod does not mount the data directory ${data}; it writes to ${writes}`;
  if (mounts.length === 0 || mounts.some(({ type }) => type === 'bind'))
    throw usageError(message, {
      code: 'wrong-data',
      hint: `correct [data] directory in configs/release.toml, or ${variableName(project, 'DATA_DIR')} in .env`,
    });
  log.info(`${message}. Backing that up instead.`);
  return places;
}

/** Without volumes that do not exist yet: mounting one would make it. */
export async function existingPlaces(places: Places): Promise<Places> {
  const found = await Promise.all(
    Object.entries(places).map(async ([name, source]) =>
      source.startsWith('/') || (await inspectVolume(source)) ? [[name, source] as const] : [],
    ),
  );
  return Object.fromEntries(found.flat());
}

/** The mounts of the places, for the backup program. */
export function mountsOf(places: Places, mode: '' | ':ro' = ''): Record<string, string> {
  return Object.fromEntries(
    Object.entries(places).map(([name, source]) => [`${PLACES}/${name}`, source + mode]),
  );
}
