// The one way to the backup program: it is bundled here and handed, with its request, to a container of the base image by
// stdin, so that nothing of it has to lie on the engine's machine, which may be another one.
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type Command, describeCommand, probe } from '../command.ts';
import { csvOption, docker } from '../docker/engine.ts';
import { TaskError, usageError } from '../errors.ts';
import { parseJson } from '../files.ts';
import { formatBytes } from '../format.ts';
import { log } from '../log.ts';
import { type Project, TASKS_FOLDER, variable } from '../project.ts';
import { waitUntil } from '../session.ts';
import type { Answer, Commands } from './program/main.ts';
import type { Line } from './program/report.ts';

/** To become the data's owner, which gives them up; as root, to act on files of any owner. */
const CAPABILITIES = ['SETUID', 'SETGID', 'CHOWN', 'FOWNER', 'DAC_OVERRIDE'];
/** Beside the writers, not in front of them. */
const CPU_SHARES = 256;
/** A killed run's program needs a moment to notice. */
const BUSY_MS = 5000;

// Both sides are built from the same sources: what the program answers needs no schema.
type Name = keyof Commands;
type Result<C extends Name> = Awaited<ReturnType<Commands[C]>>;

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
): Promise<Result<C>> {
  const request = { command: call.command, options: call.options };
  const input = `${JSON.stringify(await bundledProgram())}\n${JSON.stringify(request)}\n`;
  const found = await waitUntil(() => attempt(programCommand(project, call), input), { withinMs: BUSY_MS });
  if (found) return found.result as Result<C>;
  const message = 'Another backup task is running in the backup directory';
  throw new TaskError(message, { code: 'backup-running', hint: 'wait for it to end; its lock goes with it' });
}

/** The same for one that changes something: under --dry-run it is only printed, and undefined returned. */
export async function runProgram<C extends Name>(project: Project, call: ProgramCall<C>) {
  const command = describeCommand(programCommand(project, call));
  if (log.withhold(`run: ${command} < ${call.command} ${JSON.stringify(call.options)}`)) return undefined;
  return queryProgram(project, call);
}

/** Takes the program from the first line of stdin, as JSON, and leaves what follows to it. */
const LOADER = `let text = '';
process.stdin.setEncoding('utf8').on('data', function load(part) {
  text += part;
  const end = text.indexOf('\\n');
  if (end < 0) return;
  process.stdin.off('data', load).pause().unshift(text.slice(end + 1));
  require('node:fs').writeFileSync('/tmp/backup.mjs', JSON.parse(text.slice(0, end)));
  import('/tmp/backup.mjs');
});`;

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

/** One run; undefined while another one is at work. @throws TaskError */
async function attempt(command: Command, input: string) {
  const said: string[] = [];
  const onLine = (text: string) => {
    const line = parseJson(text) as Line | undefined;
    if (!line?.event) said.push(text);
    else if (line.event === 'progress')
      log.progress(`${line.phase} ${formatBytes(line.done)} of ${formatBytes(line.total)}`);
    else log[line.event === 'warn' ? 'warn' : 'info'](line.message);
  };
  const { exitCode, stdout } = await probe(command, { input, onLine, keepsInputOpen: true });
  const answer = parseJson(stdout) as Answer | undefined;
  if (!answer) throw whyEnded(exitCode, said.join('\n'));
  if (answer.ok) return { result: answer.result };
  const { code, message, hint } = answer.error;
  if (code === 'backup-running') return undefined;
  throw new TaskError(message, { code, hint });
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

let program: Promise<string> | undefined;

/** The program as one file of JavaScript. */
export function bundledProgram(): Promise<string> {
  program ??= bundle();
  return program;
}

async function bundle(): Promise<string> {
  const { build } = await import('esbuild');
  // Bundled libraries need `require`.
  const js = `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`;
  const { outputFiles } = await build({
    ...{ entryPoints: [join(TASKS_FOLDER, 'lib/backup/program/main.ts')], bundle: true, minify: true },
    ...{ platform: 'node', target: 'node24', format: 'esm', mainFields: ['module', 'main'], banner: { js } },
    write: false,
    logLevel: 'silent',
  });
  return outputFiles[0]!.text;
}
