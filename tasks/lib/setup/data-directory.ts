// The directory that both environments share: what it is like, what is wrong with it (one judgement for setup, switch
// and doctor), and the steps that put it right.
import { constants } from 'node:fs';
import { access, readdir, readFile, realpath, stat, statfs } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { run } from '../command.ts';
import { type Container, containerIds, inspectContainers, type Mount } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { makeDirectory, parseJson } from '../files.ts';
import { log } from '../log.ts';
import { dataDirectory, type Project, variable, variableName } from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import type { Step } from '../steps.ts';

export interface Owner {
  uid: number;
  gid: number;
}

export interface DirectoryState extends Owner {
  /** The permission bits alone. */
  mode: number;
  /** How many names are in it; undefined, as what follows, where it was not asked. */
  entries?: number | undefined;
  /** The number in its format file. */
  format?: number | undefined;
  /** Bytes. */
  free?: number | undefined;
}

export interface WantedDirectory {
  path: string;
  /** The setting that names it, e.g. `SYNAPSE_DATA_DIR`. */
  variable: string;
  /** Whom the containers run as; undefined where owners do not matter (Docker's virtual machine maps them). */
  owner: { uid: number; gid?: number | undefined } | undefined;
  /** The newest format that the image reads; undefined where it does not say. */
  format?: number | undefined;
}

export interface DirectoryProblem {
  kind: 'missing' | 'mode' | 'owner' | 'format' | 'full';
  /** Of the error that it becomes. */
  code: string;
  message: string;
  hint: string;
}

const PRIVATE = 0o700;
/** Below this a service soon cannot write. */
const SPARE_BYTES = 100e6;
const octal = (mode: number) => mode.toString(8).padStart(4, '0');
const named = ({ uid, gid }: { uid: number; gid?: number | undefined }) =>
  gid === undefined ? uid : `${uid}:${gid}`;

/** Everything that keeps a service from running on this directory; `state` is undefined if it is not there. Pure. */
export function dataDirectoryProblems(
  state: DirectoryState | undefined,
  { path, variable, owner, format }: WantedDirectory,
): DirectoryProblem[] {
  const problem = (
    kind: DirectoryProblem['kind'],
    message: string,
    hint: string,
    code = 'data-directory',
  ) => [{ kind, code, message, hint }];
  if (!state) {
    const hint = `npm run setup makes it; or name another one: ${variable}=… in .env`;
    return problem('missing', `The data directory ${path} does not exist`, hint);
  }
  const problems: DirectoryProblem[] = [];
  if (state.mode !== PRIVATE) {
    const message = `The data directory ${path} has mode ${octal(state.mode)}, expected ${octal(PRIVATE)}`;
    problems.push(...problem('mode', message, `npm run setup, or: chmod ${octal(PRIVATE)} ${path}`));
  }
  // What else the group says does not matter in a private directory.
  if (owner && owner.uid !== 0 && owner.uid !== state.uid) {
    const message = `The data directory ${path} belongs to ${named(state)}, the containers run as ${named(owner)}: they could not write`;
    problems.push(...problem('owner', message, `npm run setup, or: chown -hR ${named(owner)} ${path}`));
  }
  if (state.format !== undefined && format !== undefined && state.format > format) {
    const message = `The data in ${path} has format ${state.format}, the image reads up to ${format}`;
    const hint =
      'run a newer version, or restore a backup from before the newer one ran: npm run backup -- restore';
    problems.push(...problem('format', message, hint, 'data-format'));
  }
  if (state.free !== undefined && state.free < SPARE_BYTES) {
    const message = `The disk of the data directory ${path} is full: ${Math.round(state.free / 1e6)} MB free, at least ${SPARE_BYTES / 1e6} MB are needed`;
    problems.push(...problem('full', message, 'free some space and run the same command again', 'disk-full'));
  }
  return problems;
}

/** The format that the text of the project's format file names; undefined if it names none. */
function dataFormat(project: Project, text: string | undefined): number | undefined {
  const number = (parseJson(text ?? '') as Record<string, unknown> | undefined)?.[project.data.format_key];
  return typeof number === 'number' ? number : undefined;
}

/** What is there on this machine; undefined if nothing is. @throws TaskError if it is no directory, or may not be read */
export async function observeDataDirectory(project: Project): Promise<DirectoryState | undefined> {
  const path = dataDirectory(project);
  try {
    const { uid, gid, mode } = await stat(path);
    const [names, text, space] = await Promise.all([
      readdir(path).catch((error: NodeJS.ErrnoException) => {
        // Another user's private directory is what it should be; what is in it is that user's business.
        if (error.code === 'EACCES') return undefined;
        throw error;
      }),
      readFile(join(path, project.data.format_file), 'utf8').catch(() => undefined),
      statfs(path),
    ]);
    const format = dataFormat(project, text);
    return { uid, gid, mode: mode & 0o777, entries: names?.length, format, free: space.bavail * space.bsize };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    const why = code === 'ENOTDIR' ? 'it is not a directory' : message;
    throw new TaskError(`Cannot use the data directory ${path}: ${why}`, {
      code: 'data-directory',
      hint: `name another one: ${variableName(project, 'DATA_DIR')}=… in .env`,
    });
  }
}

/**
 * Whom the containers run as: what .env says, else whoever owns the data already, else us. Root becomes 1000, the
 * user `node` of the image, since the containers never run as root.
 */
export function chooseOwner(
  project: Project,
  state: DirectoryState | undefined,
  self = currentUser(),
): Owner {
  const fallback = self.uid === 0 ? { uid: 1000, gid: 1000 } : self;
  const natural = state?.entries && state.uid !== 0 ? state : fallback;
  const configured = (name: string) =>
    variable(project, name) ? Number(variable(project, name)) : undefined;
  return { uid: configured('UID') ?? natural.uid, gid: configured('GID') ?? natural.gid };
}

function currentUser(): Owner {
  return { uid: process.getuid?.() ?? 1000, gid: process.getgid?.() ?? 1000 };
}

/**
 * The steps to a private directory of the containers' user; none if it is one. Nothing of what the older service still
 * uses is touched: migrate takes it over, and a rollback gives it back. @throws TaskError if this user may not take them
 */
export async function planDataDirectory(project: Project, engineRuns: boolean): Promise<Step<unknown>[]> {
  const path = dataDirectory(project);
  const self = currentUser();
  const state = await observeDataDirectory(project);
  const owner = chooseOwner(project, state);
  const wanted = { path, variable: variableName(project, 'DATA_DIR'), owner };
  const steps: Step<unknown>[] = [];
  const add = (name: string, title: string, isAllowed: boolean, apply: Step<unknown>['apply']) => {
    if (!isAllowed) throw notAllowed(title, wanted, self);
    steps.push({ name, title, apply });
  };
  const holder = engineRuns && state ? await legacyHolder(project, path) : undefined;
  if (holder) {
    log.warn(`${path} is the data of the older service ${holder.name}; it is not changed`);
    log.hint('migrate the older service: npm run migrate');
    return [];
  }
  const present = state ?? { ...self, mode: PRIVATE, entries: 0 };
  const wrong = new Set(dataDirectoryProblems(present, wanted).map(({ kind }) => kind));
  if (!state) {
    const title = `make the data directory ${path} (${octal(PRIVATE)})`;
    add('make-data-directory', title, await mayMake(path), () => makePrivateDirectory(path));
  }
  if (wrong.has('mode')) {
    const title = `restrict the data directory ${path}: mode ${octal(present.mode)} → ${octal(PRIVATE)}`;
    const isAllowed = self.uid === 0 || self.uid === present.uid;
    add('restrict-data-directory', title, isAllowed, () => run(['chmod', octal(PRIVATE), path]));
  }
  if (wrong.has('owner')) {
    const inside = present.entries ? `, with everything in it (${present.entries} entries)` : '';
    const title = `give ${path}${inside} to the containers’ user: ${named(present)} → ${named(owner)}`;
    // -h: a symbolic link in the data must not give away what it points to.
    const chown = ['chown', '-h', '-R', `${owner.uid}:${owner.gid}`, path] as const;
    add('own-data-directory', title, self.uid === 0, () => run(chown));
  }
  return steps;
}

async function makePrivateDirectory(path: string): Promise<void> {
  // What lies above is no secret, and shared with other things.
  await makeDirectory(dirname(path));
  await makeDirectory(path, PRIVATE);
}

async function mayMake(path: string): Promise<boolean> {
  const parent = dirname(path);
  const code = await access(parent, constants.W_OK).then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error.code,
  );
  return code === 'ENOENT' ? mayMake(parent) : code === undefined;
}

function notAllowed(title: string, { path, variable }: WantedDirectory, { uid, gid }: Owner): TaskError {
  return new TaskError(`This user (${uid}) may not ${title}`, {
    code: 'data-directory',
    hint: `sudo install -d -m ${octal(PRIVATE)} -o ${uid} -g ${gid} ${path}\nor name another one: ${variable}=… in .env`,
  });
}

// How the older, single-service setup is recognised. Here and not in migrate/, because setup must not touch what still
// belongs to it.

/** `registry/path/rag-mcp:latest` → `rag-mcp` */
function repository(reference: string): string {
  const withoutTag = reference.replace(/@.*$/, '').replace(/:[^/]*$/, '');
  return withoutTag.split('/').at(-1) ?? '';
}

export function isLegacyData({ data_targets }: LegacyDescription, { type, target }: Mount): boolean {
  return type === 'bind' && data_targets.includes(target);
}

/**
 * The containers of the older setup: two of service, image and data are as described, its name alone says nothing. Those
 * of the new project are not it, whatever they look like.
 */
export function legacyContainers<T extends Pick<Container, 'labels' | 'image' | 'mounts'>>(
  description: LegacyDescription,
  containers: readonly T[],
  ownProject: string,
): T[] {
  return containers.filter(({ labels, image, mounts }) => {
    const signs = [
      labels['com.docker.compose.service'] === description.service,
      repository(image) === description.image,
      mounts.some((mount) => isLegacyData(description, mount)),
    ];
    return labels['com.docker.compose.project'] !== ownProject && signs.filter(Boolean).length >= 2;
  });
}

/** The older setup's container that has `directory`, or a part of it, or more than it, as its data; else undefined. */
async function legacyHolder(project: Project, directory: string): Promise<Container | undefined> {
  const { migrate: description, project: own } = project;
  if (!description) return undefined;
  const path = await realPath(directory);
  const isWithin = (inner: string, outer: string) => inner === outer || inner.startsWith(outer + sep);
  const all = await inspectContainers(await containerIds({}));
  for (const container of legacyContainers(description, all, own.name)) {
    const data = container.mounts.filter((mount) => isLegacyData(description, mount));
    const sources = await Promise.all(data.map(({ source }) => realPath(source)));
    if (sources.some((source) => isWithin(path, source) || isWithin(source, path))) return container;
  }
  return undefined;
}

const realPath = (path: string) => realpath(path).catch(() => path);
