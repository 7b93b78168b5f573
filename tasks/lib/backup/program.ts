// The one way to the backup program: it is bundled here and handed, with its request, to a container of the base image by
// stdin, so that nothing of it has to lie on the engine's machine, which may be another one.
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { type Command, describeCommand, probe } from '../command.ts';
import { csvOption, docker } from '../docker/engine.ts';
import { TaskError, usageError } from '../errors.ts';
import { formatBytes } from '../format.ts';
import { log } from '../log.ts';
import { type Project, TASKS_FOLDER, variable } from '../project.ts';
import { waitUntil } from '../session.ts';
import type { Commands } from './program/main.ts';

/** To become the data's owner, which gives them up; as root, to act on files of any owner. */
const CAPABILITIES = ['SETUID', 'SETGID', 'CHOWN', 'FOWNER', 'DAC_OVERRIDE'];
/** Beside the writers, not in front of them. */
const CPU_SHARES = 256;
/** A killed run's program needs a moment to notice. */
const BUSY_MS = 5000;

type Name = keyof Commands;
/** Both sides are bundled from the same sources: what the program answers needs no schema. */
type Answer<C extends Name> = Awaited<ReturnType<Commands[C]>>;

export interface ProgramCall<C extends Name> {
  command: C;
  options: Parameters<Commands[C]>[0];
  /** Path in the container → directory on the engine's machine, or a volume's name; `:ro` at its end: read-only. */
  mounts?: Record<string, string>;
  /** Paths of `mounts` that the engine makes on its machine where they are missing. */
  creates?: readonly string[];
}

/** Runs a command that only looks. @throws TaskError with the program's own words */
export async function queryProgram<C extends Name>(
  project: Project,
  call: ProgramCall<C>,
): Promise<Answer<C>> {
  const program = await bundledProgram();
  const length = String(Buffer.byteLength(program)).padStart(LENGTH_DIGITS);
  const input = `${length}${program}${JSON.stringify({ command: call.command, options: call.options })}\n`;
  const found = await waitUntil(() => attempt(programCommand(project, call), input), { withinMs: BUSY_MS });
  if (found) return found.result as Answer<C>;
  const message = 'Another backup task is running in the backup directory';
  throw new TaskError(message, { code: 'backup-running', hint: 'wait for it to end; its lock goes with it' });
}

/** The same for one that changes something: under --dry-run it is only printed, and undefined returned. */
export async function runProgram<C extends Name>(project: Project, call: ProgramCall<C>) {
  const command = describeCommand(programCommand(project, call));
  if (log.withhold(`run: ${command} < ${call.command} ${JSON.stringify(call.options)}`)) return undefined;
  return queryProgram(project, call);
}

const LENGTH_DIGITS = 12;
/** Reads the program from stdin, byte for byte, and leaves what follows to it. */
const LOADER = `const fs = require('node:fs');
const read = (length) => {
  const buffer = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    try {
      const count = fs.readSync(0, buffer, at, length - at);
      if (count === 0) process.exit(143);
      at += count;
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
  return buffer;
};
fs.writeFileSync('/tmp/backup.mjs', read(Number(read(${LENGTH_DIGITS}).toString())));
import('/tmp/backup.mjs');`;

function nodeImage(project: Project): string {
  const reference = project.backup.image ?? variable(project, 'BASE_IMAGE') ?? project.image.base_image;
  if (reference) return reference;
  const hint = 'set one with Node 24: [backup] image, or [image] base_image';
  throw usageError('No image is configured for the backup program', { code: 'config-invalid', hint });
}

export function backupLabel(project: Project): string {
  return `release-flow.backup=${project.project.name}`;
}

/** The `docker run` of a call: no network, a read-only root, and no more rights than the call needs. */
function programCommand(project: Project, call: ProgramCall<Name>): Command {
  const mounts = Object.entries(call.mounts ?? {}).map(([target, source]) => {
    if (call.creates?.includes(target)) return `--volume=${source}:${target}`;
    const type = source.startsWith('/') ? 'bind' : 'volume';
    const readonly = source.endsWith(':ro') ? { readonly: true as const } : {};
    return `--mount=${csvOption({ type, source: source.replace(/:ro$/, ''), target, ...readonly })}`;
  });
  return docker(
    ...['run', '--rm', '--interactive', '--init', '--pull=never', '--no-healthcheck'],
    ...['--name', `${project.project.name}-backup-${call.command}-${randomBytes(3).toString('hex')}`],
    ...['--label', backupLabel(project), '--network=none'],
    ...['--read-only', '--tmpfs=/tmp:mode=1777', '--cap-drop=ALL', '--security-opt=no-new-privileges'],
    ...CAPABILITIES.map((name) => `--cap-add=${name}`),
    ...['--user=0:0', `--cpu-shares=${CPU_SHARES}`, ...mounts],
    ...['--entrypoint=node', nodeImage(project), '--eval', LOADER],
  );
}

const Progress = z.discriminatedUnion('event', [
  z.object({ event: z.enum(['note', 'warn']), message: z.string() }),
  z.object({ event: z.literal('progress'), phase: z.string(), done: z.number(), total: z.number() }),
]);

const Answer = z.discriminatedUnion('ok', [
  z.object({ ok: z.literal(true), result: z.unknown() }),
  z.object({
    ok: z.literal(false),
    error: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }),
  }),
]);

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** One run; undefined while another one is at work. @throws TaskError */
async function attempt(command: Command, input: string) {
  const said: string[] = [];
  const onLine = (line: string) => {
    const { data } = Progress.safeParse(parse(line));
    if (!data) said.push(line);
    else if (data.event === 'progress') log.progress(progressLine(data.phase, data.done, data.total));
    else log[data.event === 'warn' ? 'warn' : 'info'](data.message);
  };
  const { exitCode, stdout } = await probe(command, { input, onLine, keepsInputOpen: true });
  const { data } = Answer.safeParse(parse(stdout));
  if (!data) throw whyEnded(exitCode, said.join('\n'));
  if (data.ok) return { result: data.result };
  if (data.error.code === 'backup-running') return undefined;
  throw new TaskError(data.error.message, { code: data.error.code, hint: data.error.hint });
}

/** Ways to end without an answer, by what docker says on stderr. */
const ENDINGS: [pattern: RegExp, code: string, hint: string][] = [
  [/No such image|Unable to find image/i, 'image-missing', 'npm run setup pulls the base image'],
  [
    /exec: "node"|ERR_UNKNOWN_BUILTIN_MODULE|bad option/,
    'no-program',
    'the backup program needs an image with Node 24: [backup] image in configs/release.toml',
  ],
  [/bind source path does not exist/, 'no-directory', 'the directory does not exist on the engine’s machine'],
];

function whyEnded(exitCode: number, stderr: string): TaskError {
  const [, code, hint] = ENDINGS.find(([pattern]) => pattern.test(stderr)) ?? [];
  const tail = stderr.trim().split('\n').slice(-5).join('\n');
  const message = `The backup program ended with exit code ${exitCode}${tail ? `:\n${tail}` : ''}`;
  return new TaskError(message, { code: code ?? 'program-failed', hint });
}

// The bundle, kept beside the launcher's until a source is newer.

async function newest(directory: string): Promise<number> {
  const entries = await readdir(directory);
  const times = entries.map(async (name) => (await stat(join(directory, name))).mtimeMs);
  return Math.max(...(await Promise.all(times)));
}

let program: Promise<string> | undefined;

export function bundledProgram(): Promise<string> {
  program ??= bundle();
  return program;
}

async function bundle(): Promise<string> {
  const root = dirname(resolve(TASKS_FOLDER));
  const source = join(TASKS_FOLDER, 'lib/backup/program');
  const clone = createHash('sha256').update(root).digest('hex').slice(0, 8);
  const cache = join(root, 'node_modules/.cache/release-flow');
  const path = join(cache, `backup-program-${clone}.mjs`);
  const made = await stat(path).catch(() => undefined);
  if (made && made.mtimeMs > (await newest(source))) return readFile(path, 'utf8');
  const { build } = await import('esbuild');
  const banner = `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`;
  const { outputFiles } = await build({
    ...{
      entryPoints: [join(source, 'main.ts')],
      bundle: true,
      minify: true,
      write: false,
      logLevel: 'silent',
    },
    ...{ platform: 'node', target: 'node24', format: 'esm', mainFields: ['module', 'main'] },
    banner: { js: banner },
  });
  const { text } = outputFiles[0]!;
  const keep = async () => {
    await mkdir(cache, { recursive: true });
    await writeFile(`${path}.${process.pid}`, text);
    await rename(`${path}.${process.pid}`, path);
  };
  // Somebody else's node_modules: it is bundled again next time.
  await keep().catch(() => {});
  return text;
}

const WIDTH = 24;

/** `archive ████░░░░ 512 MB of 1.1 GB`; without a total only what is done. Pure. */
export function progressLine(phase: string, done: number, total: number): string {
  if (total <= 0) return `${phase} ${formatBytes(done)}`;
  const filled = Math.min(WIDTH, Math.round((done / total) * WIDTH));
  const bar = '█'.repeat(filled) + '░'.repeat(WIDTH - filled);
  return `${phase} ${bar} ${formatBytes(done)} of ${formatBytes(total)}`;
}
