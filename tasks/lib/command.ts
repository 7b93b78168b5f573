// A command as data and as text. Apart from command.ts, which starts processes and has no room for it.
import { type ChildProcess, type SpawnOptions, type StdioOptions, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { delimiter } from 'node:path';
import { Duplex } from 'node:stream';
import { $, type ProcessOutput } from 'zx/core';
import { CommandError } from './errors.ts';
import { log, redact } from './log.ts';
import { interruptSignal, session, throwIfInterrupted } from './session.ts';

export type Command = readonly [program: string, ...argv: string[]];

/** The command as a person could type it, secrets redacted. */
export function describeCommand(command: Command): string {
  const quoted = command.map((part) =>
    /^[\w@%+=:,./{}~^-]+$/.test(part) ? part : `'${part.replaceAll("'", "'\\''")}'`,
  );
  return redact(quoted.join(' '));
}

// The environment that every process of ours gets. Programs are looked for beyond PATH, too: cron and launchd
// give little more than /usr/bin, and the engine's client may well lie elsewhere, put there by our own setup.

const USUAL_PLACES = [
  ...['/usr/local/bin', '/usr/bin', '/bin'],
  ...['/usr/local/sbin', '/usr/sbin', '/sbin', '/opt/homebrew/bin'],
];

/** This process's environment with `extra` laid over it; undefined removes a variable. */
function childEnvironment(extra: Record<string, string | undefined> = {}): NodeJS.ProcessEnv {
  const PATH = searchPath(extra.PATH ?? process.env.PATH);
  const merged: NodeJS.ProcessEnv = { ...process.env, ...extra, PATH };
  for (const [name, value] of Object.entries(merged)) if (value === undefined) delete merged[name];
  return merged;
}

/** `path` with the usual places behind it: what PATH itself names is found first. */
export function searchPath(path = ''): string {
  return [...new Set([...path.split(delimiter).filter(Boolean), ...USUAL_PLACES])].join(delimiter);
}

// A process as node knows it: begun without a shell, looked after until it has ended, or made to end. What a task
// starts goes through command.ts.

/** Starts it. Its input may fail in silence: one that ends before it has read it has an exit code that says why. */
function launch(command: Command, options: SpawnOptions): ChildProcess {
  const child = spawn(command[0], command.slice(1), { ...options, shell: false });
  // Unheard, EPIPE would end this task where it stands, with nothing undone.
  child.stdin?.on('error', () => {});
  return child;
}

/** Settles when it has ended; never rejects. `stderr`: its last 4 KB, redacted. */
function ended(child: ChildProcess): Promise<{ exitCode: number; stderr: string }> {
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-4096);
  });
  return new Promise((resolve) => {
    const settle = (exitCode: number) => resolve({ exitCode, stderr: redact(stderr) });
    child.once('error', (error) => {
      stderr ||= whyNotStarted([child.spawnfile], error);
      settle(127);
    });
    child.once('close', (code) => settle(code ?? 1));
  });
}

/** In words, for what a shell would have said. */
function whyNotStarted([program]: Command, { code, message }: NodeJS.ErrnoException): string {
  return `${program}: ${code === 'ENOENT' ? 'not found' : message}`;
}

/** Signals a process, or by a negative id the whole group that it leads. */
export function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has just ended by itself.
  }
}

// The only place that starts a process. A command is an array, never a shell string. `run` changes the
// world and is silent under --dry-run but for printing the very command; `read` asks and always runs;
// `probe` returns the exit code instead of throwing; `stream` is for output too large to hold.

interface CommandOptions {
  cwd?: string | undefined;
  /** Added to the environment of this process; undefined removes a variable. */
  env?: Record<string, string | undefined>;
  /** Given on stdin: the way for secrets and for texts too long for an argument. */
  input?: string | Buffer;
  timeoutMs?: number;
  /** Exit codes that are an answer, not a failure. */
  okExitCodes?: readonly number[];
}

export interface ProcessResult {
  ok: boolean;
  exitCode: number;
  stdout: string;
  stderr: string;
}

// A process that takes too long goes with its group. zx would look for its descendants by `ps`, which not every Debian
// has, and fall over where there is none.
$.kill = async (pid, signal = 'SIGTERM') => kill(-Number(pid), signal);

async function execute(command: Command, options: CommandOptions): Promise<ProcessResult> {
  throwIfInterrupted();
  log.detail(`$ ${describeCommand(command)}`);
  const signal = interruptSignal();
  const output = await $({
    // zx would go through a shell; handing spawn the array itself keeps every byte of every argument.
    spawn: ((_line: string, _argv: string[], spawnOptions: object) =>
      launch(command, spawnOptions)) as unknown as typeof spawn,
    // Unused, but without them zx does nothing where it has found no bash.
    shell: 'sh',
    quote: (word: string) => word,
    quiet: true,
    nothrow: true,
    // Its own process group: Ctrl-C reaches the task, and the task decides what happens to the child.
    detached: true,
    env: childEnvironment(options.env),
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    ...(options.cwd ? { cwd: options.cwd } : {}),
    ...(options.input === undefined ? {} : { input: options.input }),
    ...(options.timeoutMs ? { timeout: options.timeoutMs } : {}),
    ...(signal ? { signal } : {}),
  })`${[...command]}`;
  throwIfInterrupted();
  return result(command, output, options);
}

function result(command: Command, output: ProcessOutput, options: CommandOptions): ProcessResult {
  const spawnError = output.cause as NodeJS.ErrnoException | null;
  const killed = output.signal ? 128 + constants.signals[output.signal] : 127;
  const unstarted = spawnError ? `${whyNotStarted(command, spawnError)}\n` : '';
  const exitCode = spawnError ? 127 : (output.exitCode ?? killed);
  const timedOut = options.timeoutMs && output.signal ? `no answer within ${options.timeoutMs} ms\n` : '';
  const stderr = timedOut + unstarted + output.stderr;
  return { ok: exitCode === 0, exitCode, stdout: output.stdout, stderr };
}

async function mustSucceed(command: Command, options: CommandOptions): Promise<string> {
  const outcome = await execute(command, options);
  if (!outcome.ok && !options.okExitCodes?.includes(outcome.exitCode)) {
    const { exitCode, stderr, stdout } = outcome;
    throw new CommandError(describeCommand(command), exitCode, redact(stderr), redact(stdout));
  }
  return outcome.stdout.replace(/\n$/, '');
}

/** Runs a command that changes something. Under --dry-run: prints it, does nothing, returns ''. */
export async function run(command: Command, options: CommandOptions = {}): Promise<string> {
  if (session.dryRun) {
    log.would(`run: ${describeCommand(command)}`);
    return '';
  }
  return mustSucceed(command, options);
}

/** Runs a command that only asks; returns stdout without its last newline. @throws CommandError */
export async function read(command: Command, options: CommandOptions = {}): Promise<string> {
  return mustSucceed(command, options);
}

/** Runs a command whose failure is an answer; a program that does not exist gives exit code 127. */
export async function probe(command: Command, options: CommandOptions = {}): Promise<ProcessResult> {
  return execute(command, options);
}

/** Runs a command with the terminal handed over to it (an editor, a pager); its stdout goes to stderr. */
export async function runAttached(command: Command, options: CommandOptions = {}): Promise<void> {
  if (session.dryRun) return log.would(`run: ${describeCommand(command)}`);
  const child = start(command, options, ['inherit', process.stderr, 'inherit']);
  const { exitCode } = await ended(child);
  throwIfInterrupted();
  if (exitCode !== 0) throw new CommandError(describeCommand(command), exitCode, '');
}

/** The same for a task of ours, which has the dry-run gate itself; returns its stdout, whatever the exit code. */
export async function attachForAnswer(command: Command, options: CommandOptions = {}) {
  const child = start(command, options, ['inherit', 'pipe', 'inherit']);
  let stdout = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  const { exitCode } = await ended(child);
  throwIfInterrupted();
  return { exitCode, stdout };
}

/** Yields stdout as it comes, for histories and archives of any size. @throws CommandError at its end */
export async function* stream(command: Command, options: CommandOptions = {}): AsyncGenerator<Buffer> {
  const child = start(command, { ...options, signal: interruptSignal() }, ['ignore', 'pipe', 'pipe']);
  const end = ended(child);
  for await (const chunk of child.stdout!) yield chunk as Buffer;
  const { exitCode, stderr } = await end;
  throwIfInterrupted();
  if (exitCode !== 0) throw new CommandError(describeCommand(command), exitCode, stderr);
}

/**
 * Starts a command whose stdin and stdout are one connection, for a protocol spoken through a process.
 * `closed` settles when the process has ended, which destroying the stream brings about; it never rejects.
 * A `lasting` one outlives Ctrl-C: undoing still needs it.
 */
export function connect(
  command: Command,
  { lasting = false }: { lasting?: boolean } = {},
): { stream: Duplex; closed: ReturnType<typeof ended> } {
  const signal = lasting ? undefined : interruptSignal();
  const child = start(command, { signal, detached: lasting }, ['pipe', 'pipe', 'pipe']);
  return { stream: Duplex.from({ readable: child.stdout!, writable: child.stdin! }), closed: ended(child) };
}

function start(
  command: Command,
  { cwd, env, signal, detached }: CommandOptions & { signal?: AbortSignal | undefined; detached?: boolean },
  stdio: StdioOptions,
): ChildProcess {
  throwIfInterrupted();
  log.detail(`$ ${describeCommand(command)}`);
  return launch(command, { cwd, env: childEnvironment(env), stdio, signal, detached });
}
