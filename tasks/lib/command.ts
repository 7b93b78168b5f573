// The only place that starts a process: by zx, from an array, never from a string that a shell would split. `run` changes
// the world and under --dry-run only prints the very command; `read` asks and always runs; `probe` returns the exit code
// instead of throwing; `stream` is for output too large to hold; `connect` speaks with a process.
import type { StdioOptions } from 'node:child_process';
import { constants } from 'node:os';
import { delimiter } from 'node:path';
import { createInterface } from 'node:readline';
import { Duplex } from 'node:stream';
import { $, type ProcessOutput, useBash } from 'zx/core';
import { CommandError } from './errors.ts';
import { log, redact } from './log.ts';
import { interruptSignal, session, throwIfInterrupted } from './session.ts';

export type Command = readonly [program: string, ...argv: string[]];

interface CommandOptions {
  cwd?: string | undefined;
  /** Added to the environment of this process; undefined removes a variable. */
  env?: Record<string, string | undefined>;
  /** Given on stdin: the way for secrets, and for what is too long for a command line (128 kB). */
  input?: string | Buffer;
  timeoutMs?: number;
  /** Exit codes that are an answer, not a failure. */
  okExitCodes?: readonly number[];
  /** Gets each line of stderr as it comes. */
  onLine?: (line: string) => void;
  /** What `run` returns in a dry run, in place of the output, e.g. `<release commit>`. */
  placeholder?: string;
  /** Stdin stays open after `input` until the command ends: one that works for this task ends with it. */
  keepsInputOpen?: boolean;
  /** The terminal is handed over, to an editor, say; its stdout goes to stderr, or is the answer. Ctrl-C is its own. */
  terminal?: 'all' | 'all but stdout';
}

export interface ProcessResult {
  ok: boolean;
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** cron and launchd give little more than /usr/bin; our own setup puts the engine's client elsewhere. */
const USUAL_PLACES = [
  ...['/usr/local/bin', '/usr/bin', '/bin'],
  ...['/usr/local/sbin', '/usr/sbin', '/sbin', '/opt/homebrew/bin'],
];

/** `path` with the usual places behind it: what PATH itself names is found first. */
export function searchPath(path = ''): string {
  return [...new Set([...path.split(delimiter).filter(Boolean), ...USUAL_PLACES])].join(delimiter);
}

/** How to reach, to sign and to say who one is; every other variable of git and docker would redirect them. */
const HONOURED =
  /^(GIT_(SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS|EDITOR|EXEC_PATH|TERMINAL_PROMPT|AUTHOR_NAME|AUTHOR_EMAIL|COMMITTER_NAME|COMMITTER_EMAIL|CONFIG_GLOBAL|CONFIG_SYSTEM|CONFIG_NOSYSTEM|CONFIG_COUNT|CONFIG_KEY_\d+|CONFIG_VALUE_\d+|HTTP_\w+|SSL_\w+|PROXY_\w+)|DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS|TLS_VERIFY|API_VERSION))$/;

/** True for a variable that would make git, docker, buildx or compose work on something else than what is meant. Pure. */
export function isRedirecting(name: string): boolean {
  return /^(GIT|DOCKER|COMPOSE|BUILDX|BUILDKIT|BUILDCTL|ZX)_/.test(name) && !HONOURED.test(name);
}

// The shell that a task is started from changes nothing: neither for the tasks, nor for the hooks that they run.
for (const name of Object.keys(process.env)) if (isRedirecting(name)) delete process.env[name];
process.env.PATH = searchPath(process.env.PATH);
useBash();

/**
 * The command as a person could type it, secrets redacted; of a script of several lines only the first. The settings that
 * every git command of ours has in front (git.ts) are shown with `--verbose` only.
 */
export function describeCommand([program, ...argv]: Command): string {
  const isLong = program === 'git' && !session.verbose;
  const quoted = [program, ...argv.slice(isLong ? Math.max(0, argv.indexOf('-C')) : 0)].map((part) => {
    const [first = '', ...more] = part.trimStart().split('\n');
    const shown = more.length > 1 ? `${first} …` : part;
    return /^[\w@%+=:,./{}~^-]+$/.test(shown) ? shown : `'${shown.replaceAll("'", "'\\''")}'`;
  });
  return redact(quoted.join(' '));
}

interface StartOptions extends CommandOptions {
  signal?: AbortSignal | undefined;
  /** In its own process group: Ctrl-C reaches the task, and the task decides what happens to the process. */
  detached?: boolean;
}

function start(command: Command, options: StartOptions) {
  const { cwd, env, input, signal, terminal, keepsInputOpen, detached = !terminal } = options;
  throwIfInterrupted();
  log.detail(`$ ${describeCommand(command)}`);
  if (terminal) log.idle();
  const stdin = input !== undefined || keepsInputOpen ? 'pipe' : 'ignore';
  const stdio: StdioOptions = terminal
    ? ['inherit', terminal === 'all' ? 2 : 'pipe', 'inherit']
    : [stdin, 'pipe', 'pipe'];
  const how = {
    quiet: true,
    verbose: false,
    nothrow: true,
    // The shell becomes the command, instead of starting it as a second process.
    prefix: 'exec ',
    detached,
    stdio,
    env: { ...process.env, ...env },
  };
  const child = $({ ...how, ...(cwd ? { cwd } : {}), ...(signal ? { signal } : {}) })`${[...command]}`;
  if (stdin === 'ignore' || terminal) return child;
  // A program that ends before it has read its input has an exit code that says why.
  child.stdin.on('error', () => {});
  if (input !== undefined) child.stdin.write(input);
  if (!keepsInputOpen) child.stdin.end();
  return child;
}

async function execute(command: Command, options: CommandOptions): Promise<ProcessResult> {
  const { timeoutMs, terminal, onLine } = options;
  const timeout = timeoutMs ? AbortSignal.timeout(timeoutMs) : undefined;
  const signals = [terminal ? undefined : interruptSignal(), timeout].filter((one) => one !== undefined);
  const signal = signals.length > 0 ? AbortSignal.any(signals) : undefined;
  const child = start(command, { ...options, signal });
  if (onLine) createInterface({ input: child.stderr }).on('line', onLine);
  const output = await child;
  if (options.keepsInputOpen) child.stdin.destroy();
  throwIfInterrupted();
  const result = resultOf(output);
  const late = timeout?.aborted && !result.ok ? `did not end within ${timeoutMs} ms\n` : '';
  return { ...result, stderr: late + result.stderr };
}

function resultOf({ exitCode, signal, stdout, stderr, cause }: ProcessOutput): ProcessResult {
  const code = exitCode ?? (signal ? 128 + constants.signals[signal] : 127);
  const missing = /^\S*bash: (?:line \d+: )?exec: (.*): not found$/m;
  const said = stderr.replace(missing, '$1: command not found').replace(/^\S*bash: (line \d+: )?/, '');
  const wasAborted = (cause as Error | null)?.name === 'AbortError';
  const notStarted = exitCode === null && !wasAborted && cause instanceof Error ? `${cause.message}\n` : '';
  return { ok: code === 0, exitCode: code, stdout, stderr: notStarted + said };
}

function failure(command: Command, { exitCode, stderr, stdout }: ProcessResult): CommandError {
  return new CommandError(describeCommand(command), exitCode, redact(stderr), redact(stdout));
}

/** Runs a command that changes something; returns stdout without its last newline. @throws CommandError */
export async function run(command: Command, options: CommandOptions = {}): Promise<string> {
  if (log.withhold(`run: ${describeCommand(command)}`)) return options.placeholder ?? '';
  return read(command, options);
}

/** Runs a command that only asks; returns stdout without its last newline. @throws CommandError */
export async function read(command: Command, options: CommandOptions = {}): Promise<string> {
  const result = await execute(command, options);
  if (!result.ok && !options.okExitCodes?.includes(result.exitCode)) throw failure(command, result);
  return result.stdout.replace(/\n$/, '');
}

/** Runs a command whose failure is an answer; a program that does not exist gives exit code 127. */
export async function probe(command: Command, options: CommandOptions = {}): Promise<ProcessResult> {
  return execute(command, options);
}

/** Yields stdout as it comes, for histories and archives of any size. @throws CommandError at its end */
export async function* stream(command: Command, options: CommandOptions = {}): AsyncGenerator<Buffer> {
  const process = start(command, { ...options, signal: interruptSignal() });
  for await (const chunk of process.stdout) yield chunk as Buffer;
  const result = resultOf(await process);
  throwIfInterrupted();
  if (!result.ok) throw failure(command, { ...result, stdout: '' });
}

/**
 * Starts a command whose stdin and stdout are one connection, for a protocol spoken through a process.
 * `closed` settles when the process has ended, which destroying the stream brings about; it never rejects.
 * A `lasting` one outlives Ctrl-C: undoing still needs it.
 */
export function connect(command: Command, { lasting = false }: { lasting?: boolean } = {}) {
  const signal = lasting ? undefined : interruptSignal();
  const process = start(command, { keepsInputOpen: true, signal, detached: lasting });
  const stream = Duplex.from({ readable: process.stdout, writable: process.stdin });
  const closed = async () => resultOf(await process);
  return { stream, closed: closed() };
}
