// The data directory as the engine's machine has it: there, private, writable by the container's user, and in
// a format that the image can read. On another machine it is read through a container that never starts.
import { readFile, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { probe, read, stream } from '../command.ts';
import { docker, parseJson } from '../docker/client.ts';
import type { Image } from '../docker/images.ts';
import { TaskError } from '../errors.ts';
import { type EnvironmentName, type Project, variableName } from '../project.ts';

export interface DataDirectory {
  mode: number;
  uid: number;
  gid: number;
  /** The number in its format file; undefined if there is none. */
  format: number | undefined;
  /** Bytes; undefined where it cannot be asked. */
  free: number | undefined;
}

/** Below this a service soon cannot write. */
export const SPARE_BYTES = 100 * 2 ** 20;

async function formatOf(project: Project, text: string | undefined): Promise<number | undefined> {
  const value = parseJson(text ?? '');
  const number = (value as Record<string, unknown> | undefined)?.[project.data.format_key];
  return typeof number === 'number' ? number : undefined;
}

/** Undefined if there is no such directory. */
export async function readLocalData(project: Project, path: string): Promise<DataDirectory | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isDirectory()) return undefined;
  const [text, space] = await Promise.all([
    readFile(join(path, project.data.format_file), 'utf8').catch(() => undefined),
    statfs(path),
  ]);
  const { mode, uid, gid } = found;
  return {
    mode: mode & 0o777,
    uid,
    gid,
    format: await formatOf(project, text),
    free: space.bavail * space.bsize,
  };
}

/** The same on the engine's own machine; needs no program in the image, only its name. */
export async function readRemoteData(project: Project, path: string, image: string) {
  const mount = `type=bind,source=${path},target=/looked-at,readonly`;
  const made = await probe(docker('create', '--pull', 'never', '--mount', mount, image, 'never-started'));
  if (!made.ok) {
    if (/does not exist/.test(made.stderr)) return undefined;
    throw new TaskError(`Cannot look at ${path} on the engine's machine: ${made.stderr.trim()}`, {
      code: 'data-directory',
    });
  }
  const id = made.stdout.trim();
  try {
    const header = await firstBlock(docker('cp', `${id}:/looked-at`, '-'));
    const octal = (from: number, length: number) =>
      Number.parseInt(header.toString('ascii', from, from + length), 8);
    const text = await probe(docker('cp', `${id}:/looked-at/${project.data.format_file}`, '-'));
    // A tar of one small file: a block of header, then the text up to its padding.
    const content = text.ok ? text.stdout.slice(512).split('\0', 1)[0] : undefined;
    const [mode, uid, gid] = [octal(100, 7) & 0o777, octal(108, 7), octal(116, 7)];
    return { mode, uid, gid, format: await formatOf(project, content), free: undefined };
  } finally {
    await read(docker('rm', '--force', '--volumes', id));
  }
}

/** The tar header of a directory, without reading what is in it. */
async function firstBlock(command: ReturnType<typeof docker>): Promise<Buffer> {
  let block = Buffer.alloc(0);
  for await (const chunk of stream(command)) {
    block = Buffer.concat([block, chunk]);
    if (block.length >= 512) break;
  }
  return block.subarray(0, 512);
}

/** Everything that speaks against starting `service` on this directory. Pure. */
export function dataProblems(
  project: Project,
  subject: { environment: EnvironmentName; path: string; user: string | undefined; image: Image | undefined },
  data: DataDirectory | undefined,
): TaskError[] {
  const { environment, path, user, image } = subject;
  const problem = (message: string, hint: string) => new TaskError(message, { code: 'data-directory', hint });
  if (!data) {
    const elsewhere = `or name another: ${variableName(project, 'DATA_DIR')}=… in .env`;
    return [problem(`The data directory ${path} is not there`, `npm run setup makes it; ${elsewhere}`)];
  }
  const problems: TaskError[] = [];
  if (data.mode !== 0o700) {
    const mode = data.mode.toString(8).padStart(4, '0');
    problems.push(
      problem(`The data directory ${path} has mode ${mode}, expected 0700`, `chmod 0700 ${path}`),
    );
  }
  const uid = /^\d+/.exec(user ?? '')?.[0];
  if (uid !== undefined && uid !== '0' && Number(uid) !== data.uid) {
    const message = `The data directory ${path} belongs to ${data.uid}:${data.gid}, but ${environment} runs as ${user}: it could not write`;
    problems.push(problem(message, `npm run setup, or: chown -R ${user} ${path}`));
  }
  const label = project.data.format_label;
  const readable = Number(image?.labels[label ?? ''] ?? Number.NaN);
  if (data.format !== undefined && readable < data.format) {
    problems.push(
      new TaskError(
        `The data in ${path} has format ${data.format}; the image of ${environment} reads up to ${readable}`,
        {
          code: 'data-format',
          hint: 'run a newer version, or restore a backup from before the newer one ran: npm run backup -- restore',
        },
      ),
    );
  }
  if (data.free !== undefined && data.free < SPARE_BYTES) {
    const message = `The disk of the data directory ${path} is full: ${megabytes(data.free)} free, at least ${megabytes(SPARE_BYTES)} are needed`;
    problems.push(new TaskError(message, { code: 'disk-full', hint: 'make room, then switch again' }));
  }
  return problems;
}

export function megabytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MB`;
}
