// The frame around every task: flags, help, signals, and the one place where an error becomes a message
// and an exit code. A task itself only tells its story.
import { EXIT, TaskError } from './errors.ts';
import {
  type COMMON_FLAGS,
  type CommandLine,
  type Flags,
  type FlagValues,
  helpPage,
  parseCommandLine,
} from './flags.ts';
import { interrupt } from './interrupt.ts';
import { log, redact } from './log.ts';
import { session } from './session.ts';
import { describeSystemError } from './system-errors.ts';

export interface TaskInput<F extends Flags> {
  flags: FlagValues<F & typeof COMMON_FLAGS>;
  positionals: string[];
}

export interface TaskResult {
  /** Merged into the `--json` object. */
  data?: Record<string, unknown>;
  /** Printed on stdout without `--json`. */
  text?: string;
  /** 0 unless the task answers a question with "no" (e.g. status: something is not well). */
  exitCode?: number;
}

export interface Task<F extends Flags> extends CommandLine<F> {
  run: (input: TaskInput<F>) => Promise<TaskResult>;
}

/** Runs a task from the command line; sets the process's exit code, never throws. */
export async function runTask<F extends Flags>(task: Task<F>, argv = process.argv.slice(2)): Promise<void> {
  session.json = argv.includes('--json');
  // Until it has ended well: a process that dies of an empty event loop must not look successful.
  process.exitCode = EXIT.failed;
  const stopWatching = watchForSilentEnds(task.name);
  try {
    const input = parseCommandLine(task, argv);
    if (input.flags.help) {
      process.stdout.write(helpPage(task));
      process.exitCode = 0;
      return;
    }
    const common = input.flags as FlagValues<typeof COMMON_FLAGS>;
    session.dryRun = common['dry-run'];
    session.json = common.json;
    session.verbose = common.verbose;
    session.assumeYes = common.yes;
    const { context } = input.flags as { context?: string };
    session.context = context;
    listenToSignals();
    const result = await task.run(input as TaskInput<F>);
    report(task.name, result);
  } catch (error) {
    fail(task.name, error);
  } finally {
    stopWatching();
  }
}

/** Whatever ends the process before the task has ended is reported like any other failure. */
function watchForSilentEnds(name: string): () => void {
  const onEmptyLoop = () => fail(name, new Error('the task waited for something that never came'));
  const onError = (error: unknown) => {
    fail(name, error);
    process.exit(EXIT.failed);
  };
  process.once('beforeExit', onEmptyLoop).once('uncaughtException', onError);
  return () => {
    process.off('beforeExit', onEmptyLoop).off('uncaughtException', onError);
  };
}

function listenToSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      log.warn(`${signal}: stopping at the next safe place`);
      interrupt(signal);
    });
  }
}

function report(name: string, result: TaskResult): void {
  process.exitCode = result.exitCode ?? 0;
  if (session.json) {
    const envelope = { ok: process.exitCode === 0, task: name, dryRun: session.dryRun, ...result.data };
    process.stdout.write(`${redact(JSON.stringify(envelope))}\n`);
  } else if (session.withheld) {
    // Its text would claim what was not done.
    log.info('Dry run: nothing was changed.');
  } else if (result.text) {
    process.stdout.write(`${redact(result.text)}\n`);
  }
}

function fail(name: string, thrown: unknown): void {
  const error = describeSystemError(thrown) ?? thrown;
  const known = error instanceof TaskError;
  process.exitCode = known ? error.exitCode : EXIT.failed;
  const message = error instanceof Error ? error.message : String(error);
  log.error(message);
  if (known && error.hint) log.info(`  hint: ${error.hint.replaceAll('\n', '\n        ')}`);
  if ((!known || session.verbose) && error instanceof Error && error.stack) log.detail(error.stack);
  if (!known && !session.verbose)
    log.info('  hint: this is unexpected; run again with --verbose for the stack trace');
  if (!session.json) return;
  const details = {
    code: known ? error.code : 'unexpected',
    message,
    hint: known ? (error.hint ?? null) : null,
  };
  const envelope = { ok: false, task: name, dryRun: session.dryRun, error: details };
  process.stdout.write(`${redact(JSON.stringify(envelope))}\n`);
}
