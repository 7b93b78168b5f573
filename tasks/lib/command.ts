// The only place that starts a process. A command is an array, never a shell string. `run` changes the
// world and is silent under --dry-run but for printing the very command; `read` asks and always runs;
// `probe` returns the exit code instead of throwing; `stream` is for output too large to hold.
import type { ChildProcess, StdioOptions, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { Duplex } from 'node:stream';
import { childEnvironment } from './child-environment.ts';
import { ended, kill, launch, whyNotStarted } from './child-process.ts';
import { type Command, describeCommand } from './command-text.ts';
import { CommandError } from './errors.ts';
import { interruptSignal, throwIfInterrupted } from './interrupt.ts';
import { $, type ProcessOutput } from './libraries.ts';
import { log, redact } from './log.ts';
import { session } from './session.ts';

export { type Command, describeCommand } from './command-text.ts';

export interface CommandOptions {
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
