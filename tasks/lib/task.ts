// The frame around every task: flags, help, signals, and the one place where an error becomes a message
// and an exit code. A task itself only tells its story.
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { probe } from './command.ts';
import { describeSystemError, EXIT, errorSummary, suggestion, TaskError, usageError } from './errors.ts';
import { parseJson } from './files.ts';
import { partMark } from './lock.ts';
import { log, redact } from './log.ts';
import { type Project, TASKS_FOLDER } from './project.ts';
import { interrupt, type Session, session } from './session.ts';

export interface TaskResult {
  /** Merged into the `--json` object. */
  data?: Record<string, unknown>;
  /** Printed on stdout without `--json`. */
  text?: string;
  /** 0 unless the task answers a question with "no" (e.g. status: something is not well). */
  exitCode?: number;
}

interface Task<F extends Flags> extends CommandLine<F> {
  run: (input: CommandLineInput<F>) => Promise<TaskResult>;
}

/** Runs a task from the command line; sets the process's exit code, never throws. */
export async function runTask<F extends Flags>(task: Task<F>, argv = process.argv.slice(2)): Promise<void> {
  session.json = argv.includes('--json');
  // Whoever reads the result may stop early: `… | head`.
  process.stdout.on('error', ({ code }: NodeJS.ErrnoException) =>
    process.exit(code === 'EPIPE' ? 0 : EXIT.failed),
  );
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
    const { 'dry-run': dryRun, json, verbose, quiet, yes } = input.flags as FlagValues<typeof COMMON_FLAGS>;
    verifyDryRunReached(task, dryRun);
    const context = contextOf(input.flags);
    Object.assign(session, {
      dryRun,
      json,
      verbose,
      quiet,
      assumeYes: yes,
      context,
    } satisfies Partial<Session>);
    listenToSignals();
    log.working(scriptOf(task.name));
    report(task.name, await task.run(input));
  } catch (error) {
    // What comes after a command that a dry run withheld cannot be known: there the simulation ends.
    const isSimulated = session.withheld && (error as { code?: string }).code !== 'interrupted';
    if (isSimulated) log.detail(`the simulation ends here: ${errorSummary(error)}`);
    if (isSimulated) report(task.name, {});
    else fail(task.name, error);
  } finally {
    stopWatching();
  }
}

/** The flag, else what the shell chose; DOCKER_HOST beats DOCKER_CONTEXT, as for the client. */
function contextOf(flags: { context?: string } | object): string | undefined {
  if (!('context' in flags)) return undefined;
  return flags.context ?? (process.env.DOCKER_HOST ? undefined : process.env.DOCKER_CONTEXT || undefined);
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
  log.idle();
  process.exitCode = result.exitCode ?? 0;
  if (session.json) {
    printJson(name, process.exitCode === 0, result.data ?? {});
  } else if (session.withheld) {
    // Its text would claim what was not done.
    log.info('Dry run: nothing was changed.');
  } else if (result.text && !(session.quiet && process.exitCode === 0)) {
    log.result(result.text);
  }
}

function printJson(task: string, ok: boolean, data: Record<string, unknown>): void {
  process.stdout.write(`${redact(JSON.stringify({ ok, task, dryRun: session.dryRun, ...data }))}\n`);
}

function fail(name: string, thrown: unknown): void {
  const error = describeSystemError(thrown) ?? thrown;
  const known = error instanceof TaskError;
  process.exitCode = known ? error.exitCode : EXIT.failed;
  const message = error instanceof Error ? error.message : String(error);
  log.error(message);
  if (known && error.hint) log.hint(error.hint);
  if ((!known || session.verbose) && error instanceof Error && error.stack) log.detail(error.stack);
  if (!known && !session.verbose) log.hint('this is a bug; run again with --verbose for the stack trace');
  if (!session.json) return;
  const details = {
    code: known ? error.code : 'unexpected',
    message,
    hint: known ? (error.hint ?? null) : null,
  };
  printJson(name, false, { error: details });
}

// The strict command line: declared flags only, the nearest match for an unknown one, and a help page
// made from the same declarations. Parsing is node's own parseArgs.

interface Flag {
  type: 'boolean' | 'string';
  description: string;
  /** How the value is called in the help, e.g. `VERSION`. */
  value?: string;
  short?: string;
}

type Flags = Record<string, Flag>;

type FlagValues<F extends Flags> = {
  [K in keyof F]: F[K]['type'] extends 'boolean' ? boolean : string | undefined;
};

/** What every task accepts. */
const COMMON_FLAGS = {
  'dry-run': { type: 'boolean', description: 'print the plan and every command, change nothing' },
  yes: { type: 'boolean', short: 'y', description: 'skip the question' },
  json: { type: 'boolean', description: 'print exactly one JSON object on stdout, on failure too' },
  quiet: { type: 'boolean', description: 'print only warnings and errors, e.g. for cron' },
  verbose: { type: 'boolean', description: 'print each command as it runs' },
  help: { type: 'boolean', short: 'h', description: 'print this page' },
} as const satisfies Flags;

/** For tasks that can work on another machine's engine; `runTask` hands the value to every call of docker. */
export const CONTEXT_FLAG = {
  context: {
    type: 'string',
    value: 'NAME',
    description: 'work on the engine of this Docker context, e.g. one made for ssh://pi',
  },
} as const satisfies Flags;

interface CommandLine<F extends Flags> {
  name: string;
  summary: string;
  /** The positional arguments as the help shows them, e.g. `[patch|minor|major]`. */
  arguments?: string;
  maxArguments?: number;
  /** The words that the first positional may be; anything else is refused with the nearest match. */
  choices?: readonly string[];
  flags: F;
  examples?: readonly string[];
}

interface CommandLineInput<F extends Flags> {
  flags: FlagValues<F & typeof COMMON_FLAGS>;
  positionals: string[];
}

interface Parsed {
  values: Record<string, boolean | string | undefined>;
  positionals: string[];
}

/** The npm script of a task, which is how people know it: the one of switch-env.ts is `switch`. */
export function scriptOf(task: string): string {
  return task === 'switch-env' ? 'switch' : task;
}

/** @throws TaskError (exit 2) for an unknown flag, a missing value or a surplus argument. */
export function parseCommandLine<F extends Flags>(
  spec: CommandLine<F>,
  argv: readonly string[],
): CommandLineInput<F> {
  const flags: Flags = { ...spec.flags, ...COMMON_FLAGS };
  const options = Object.entries(flags).map(([name, { type, short }]) => {
    return [name, { type, ...(short ? { short } : {}), ...(type === 'boolean' ? { default: false } : {}) }];
  });
  try {
    const config = { args: [...argv], options: Object.fromEntries(options), allowPositionals: true };
    const { values, positionals } = parseArgs(config) as Parsed;
    const empty = Object.keys(values).find((name) => values[name] === '');
    if (empty) throw needsValue(spec, `--${empty}`, flags);
    verifyPositionals(spec, positionals);
    // One that was not given is there, too: it says that the task knows it.
    const given = Object.fromEntries(Object.keys(flags).map((name) => [name, values[name]]));
    return { flags: given as FlagValues<F & typeof COMMON_FLAGS>, positionals };
  } catch (error) {
    throw error instanceof TaskError ? error : describeMisuse(spec, error as NodeJS.ErrnoException, flags);
  }
}

/** What parseArgs refuses, e.g. "Option '-y, --yes' does not take an argument". */
function describeMisuse(spec: CommandLine<Flags>, { code, message }: NodeJS.ErrnoException, flags: Flags) {
  const [, name = ''] = /'(?:-\w, )?(--?[^' ]+)/.exec(message) ?? [];
  if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') {
    const names = Object.keys(flags).map((flag) => `--${flag}`);
    return wrong(spec, `Unknown flag ${name}`, suggestion(name, names));
  }
  return message.includes('does not take')
    ? wrong(spec, `${name} takes no value`)
    : needsValue(spec, name, flags);
}

function needsValue(spec: CommandLine<Flags>, name: string, flags: Flags): TaskError {
  return wrong(spec, `${name} needs a value: ${name} ${flags[name.slice(2)]?.value ?? 'VALUE'}`);
}

/** `npm run backup --dry-run`, without `--`, gives the flag to npm: the task would do what it was meant only to show. */
function verifyDryRunReached(spec: CommandLine<Flags>, isDryRun: boolean): void {
  if (isDryRun || !process.env.npm_config_dry_run) return;
  const command = `npm run ${scriptOf(spec.name)} -- --dry-run`;
  throw wrong(spec, 'npm took --dry-run for itself, so it did not reach the task', `write: ${command}`);
}

function verifyPositionals(spec: CommandLine<Flags>, positionals: readonly string[]): void {
  const surplus = positionals[spec.maxArguments ?? 0];
  if (surplus !== undefined) throw wrong(spec, `Unexpected argument "${surplus}"`);
  const [first] = positionals;
  if (spec.choices && first !== undefined && !spec.choices.includes(first)) {
    throw wrong(spec, `Unknown argument "${first}"`, suggestion(first, spec.choices));
  }
}

function wrong({ name }: CommandLine<Flags>, message: string, hint?: string): TaskError {
  const help = `see: npm run ${scriptOf(name)} -- --help`;
  return usageError(`${scriptOf(name)}: ${message}`, { hint: hint ? `${hint}\n${help}` : help });
}

export function helpPage<F extends Flags>(spec: CommandLine<F>): string {
  const rows = Object.entries({ ...spec.flags, ...COMMON_FLAGS } as Flags).map(([name, flag]) => {
    const value = flag.type === 'string' ? ` ${flag.value ?? 'VALUE'}` : '';
    const short = flag.short ? `-${flag.short}, ` : '    ';
    return [`  ${short}--${name}${value}`, flag.description] as const;
  });
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  const usage = `Usage: npm run ${scriptOf(spec.name)} --${spec.arguments ? ` ${spec.arguments}` : ''} [flags]`;
  const examples = spec.examples?.length
    ? ['', 'Examples:', ...spec.examples.map((line) => `  ${line}`)]
    : [];
  return [
    spec.summary,
    '',
    usage,
    '',
    'Flags:',
    ...rows.map(([left, right]) => left.padEnd(width) + right),
    ...examples,
    '',
  ].join('\n');
}

// Running another task as a process of its own, the way a person would: with its own lock, history and
// signals. For stories that consist of whole tasks; tasks never import each other.

/** Runs `tasks/<name>.ts` and shows its progress and its result. @throws TaskError with its error if it fails */
export async function runOtherTask(project: Project, name: string, ...argv: string[]): Promise<void> {
  const result = await resultOfOtherTask(project, name, ...argv);
  if (!session.json && result) log.plan(result.trimEnd());
}

/** The same, but the result is returned and not shown. */
export async function resultOfOtherTask(project: Project, name: string, ...argv: string[]): Promise<string> {
  // A dry run of it makes no sense once something is withheld that it would look at.
  const typed = `npm run ${scriptOf(name)} -- ${argv.join(' ')}`;
  if (session.withheld && log.withhold(`run: ${typed}`)) return '';
  const flags = [
    '--yes',
    ...(session.json ? ['--json'] : []),
    ...(session.verbose ? ['--verbose'] : []),
    ...(session.quiet ? ['--quiet'] : []),
    ...(session.dryRun ? ['--dry-run'] : []),
  ];
  const command = [process.execPath, join(TASKS_FOLDER, 'start.mjs'), name, ...argv, ...flags] as const;
  const options = { cwd: project.root, env: partMark(project.root), terminal: 'all but stdout' } as const;
  const { exitCode, stdout } = await probe(command, options);
  if (exitCode === 0) return stdout;
  // It has printed its message and hint already; only a reader of --json has nothing but what is thrown here.
  const { error } = (parseJson(stdout) ?? {}) as { error?: Partial<TaskError> };
  const { code = 'step-failed', message = 'see above', hint } = error ?? {};
  throw new TaskError(`${scriptOf(name)} failed: ${message}`, {
    code,
    hint: hint ?? 'repair the cause, then run the same command again',
    exitCode,
  });
}
