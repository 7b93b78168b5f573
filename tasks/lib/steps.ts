// The one step engine: a release, a switch, a restore and a migration are each a list of steps with one commit point.
// It prints each step, times it, writes it to the journal before and after, undoes in reverse order before the commit
// point, finishes after it, and lets the next run resume from the journal.
import { readdir, rm } from 'node:fs/promises';
import { type ZodType, z } from 'zod';
import { CommandError, errorSummary, TaskError } from './errors.ts';
import { ensureStateDirectory, readIfPresent, replaceFile, statePath } from './files.ts';
import { ago } from './format.ts';
import { appendHistory, type HistoryDetails, logPhases, readHistory } from './history.ts';
import { log } from './log.ts';
import { session, throwIfInterrupted, uninterrupted } from './session.ts';

export interface Step<Data> {
  /** In the journal and in kill tests; stable. */
  name: string;
  /** In the plan, the progress and the dry run. */
  title: string;
  /** May find its work done, wholly or in part. What it finds out goes into `data`, which is journaled afterwards. */
  apply: (data: Data) => Promise<unknown>;
  /** Also called for a step that was only begun. First checks that what it brings back still exists. */
  undo?: (data: Data) => Promise<unknown>;
  /** The commit point: before it a failure undoes, after it the next run finishes. */
  commits?: true;
  /** For the commit point: did it happen? Asked after a failure or a kill in its middle; without it, a kill counts as yes. */
  isDone?: (data: Data) => Promise<boolean>;
}

export interface Journey<Data> {
  root: string;
  /** Names the journal and the history line, e.g. `switch`; with another engine's name behind it: `switch@pi`. */
  task: string;
  /** What a person runs to resume it, e.g. `npm run switch`. */
  command: string;
  /** Of what the journal holds: plain JSON. */
  schema: ZodType<Data>;
  /** A pure function of what was planned, so that another process can go on where one died. */
  steps: (data: Data) => readonly Step<Data>[];
  history: (data: Data) => HistoryDetails;
  /** False where what undoing would bring back is gone: an interrupted run is finished then. */
  canUndo?: (data: Data) => Promise<boolean>;
}

const journalSchema = z.strictObject({
  format: z.literal(1),
  task: z.string(),
  /** What resumes it. */
  command: z.string(),
  /** ISO 8601, UTC. */
  startedAt: z.string(),
  at: z.string(),
  /** The step that was begun and has not ended. */
  current: z.string().nullable(),
  done: z.array(z.string()),
  committed: z.boolean(),
  undoing: z.boolean(),
  /** Seconds per step. */
  phases: z.record(z.string(), z.number()),
  data: z.unknown(),
});

type Outcome = 'done' | 'failed' | 'interrupted';
type JournalFile = z.output<typeof journalSchema>;
type Journal<Data> = Omit<JournalFile, 'data'> & { data: Data };

function journalPath(root: string, task: string): string {
  return statePath(root, 'journal', `${task}.json`);
}

/** What an interrupted run left to resume, without resuming it. @throws TaskError if the journal cannot be read */
export async function interruptedRun<Data>({
  root,
  task,
  schema,
}: Pick<Journey<Data>, 'root' | 'task' | 'schema'>): Promise<Journal<Data> | undefined> {
  const path = journalPath(root, task);
  const text = await readIfPresent(path);
  if (text === undefined) return undefined;
  try {
    const journal = journalSchema.parse(JSON.parse(text));
    return { ...journal, data: schema.parse(journal.data) };
  } catch (cause) {
    throw new TaskError(`Cannot read the journal of an interrupted run: ${path} is not one of this version`, {
      code: 'journal-unreadable',
      hint: `look at what is there (git log, docker ps), then clear it: rm ${path}`,
      cause,
    });
  }
}

/** Forgets an interrupted run, because somebody has taken its work back since. */
export async function forgetRun({ root, task }: Pick<Journey<unknown>, 'root' | 'task'>): Promise<void> {
  const path = journalPath(root, task);
  if (!log.withhold(`remove: ${path}`)) await rm(path, { force: true });
}

/** What an interrupted run left, as far as its journal can be read. */
export interface InterruptedRun {
  /** As its journal is named: `switch`, `switch@pi`. */
  task: string;
  /** What a person runs to resume it. */
  command: string;
  /** ISO 8601, UTC. */
  at?: string;
  step?: string | undefined;
  /** Why the journal cannot be read. */
  error?: TaskError;
}

/** An interrupted run as a problem, and what to do about it. */
export function interruptedProblem({ task, command, at, step, error }: InterruptedRun, now: Date) {
  const code = 'interrupted';
  if (error) return { code, message: error.message, hint: error.hint ?? '' };
  const message = `${task} was interrupted${at ? ` ${ago(at, now)}` : ''}${step ? ` at "${step}"` : ''}`;
  return { code, message, hint: `resume it: ${command}` };
}

/** Every interrupted run of this project; only looks. */
export async function interruptedRuns(root: string): Promise<InterruptedRun[]> {
  const names = await readdir(statePath(root, 'journal')).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    return [];
  });
  const tasks = names.filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -'.json'.length));
  const found = await Promise.all(tasks.map((task) => describeJournal(root, task)));
  return found.filter((run) => run !== undefined);
}

async function describeJournal(root: string, task: string): Promise<InterruptedRun | undefined> {
  try {
    const journal = await interruptedRun({ root, task, schema: z.unknown() });
    const step = journal?.current ?? journal?.done.at(-1);
    return journal && { task, command: journal.command, at: journal.at, step };
  } catch (error) {
    if (!(error instanceof TaskError)) throw error;
    const [name, context] = task.split('@');
    const command = `npm run ${name === 'undo' ? 'release' : name}${context ? ` -- --context ${context}` : ''}`;
    return { task, command, error };
  }
}

async function save<Data>({ root, task }: Journey<Data>, journal: Journal<Data>): Promise<void> {
  await ensureStateDirectory(root, 'journal');
  const text = `${JSON.stringify({ ...journal, at: new Date().toISOString() }, null, 2)}\n`;
  await replaceFile(journalPath(root, task), text, { mode: 0o600 });
}

/**
 * The one place where tests make a task die at a named moment: RELEASE_FLOW_FAULT=SIGNAL@TASK/STEP[/applied|/undo].
 * A kill test that has to guess the moment by time cannot cover every boundary.
 */
function faultPoint(name: string): void {
  const [signal, ...point] = process.env.RELEASE_FLOW_FAULT?.split('@') ?? [];
  if (point.join('@') === name) process.kill(process.pid, signal as NodeJS.Signals);
}

/** The plan as it is shown: a line for each step. */
export function describeSteps<Data>(steps: readonly Step<Data>[]): string[] {
  return steps.map(({ title }) => title);
}

function newJournal<Data>({ task, command }: Journey<Data>, data: Data): Journal<Data> {
  const now = new Date().toISOString();
  return {
    ...{ format: 1, task, command, startedAt: now, at: now, data },
    ...{ current: null, done: [], committed: false, undoing: false, phases: {} },
  };
}

/**
 * Applies the steps, with one line in the history. Returns the data and the seconds per step.
 * @throws TaskError; before the commit point everything was undone, after it the next run finishes
 */
export async function runSteps<Data>(journey: Journey<Data>, data: Data) {
  const journal = newJournal(journey, data);
  if (!(await simulated(journey.steps(data), 'apply', data))) {
    await carryOut(journey, journal);
    logPhases(journal.phases);
  }
  return { data: journal.data, phases: journal.phases };
}

/** Undoes all steps of a run that ended well: a rollback. Resumable like the run itself. */
export async function undoSteps<Data>(journey: Journey<Data>, data: Data): Promise<void> {
  const steps = journey.steps(data);
  if (await simulated([...steps].reverse(), 'undo', data)) return;
  const journal = newJournal(journey, data);
  journal.done = steps.map(({ name }) => name);
  journal.committed = true;
  await uninterrupted(() => undoAll(journey, journal));
  await end(journey, journal, 'done');
}

/** Finishes, or undoes, what an interrupted run left. Call it holding the lock. @throws TaskError if it cannot */
export async function resumeSteps<Data>(journey: Journey<Data>) {
  const journal = await interruptedRun(journey);
  if (!journal) return undefined;
  const current = journey.steps(journal.data).find(({ name }) => name === journal.current);
  if (current?.commits && !journal.undoing)
    journal.committed = (await current.isDone?.(journal.data)) ?? true;
  // What was committed and is being undone is a rollback: its own end is that everything is undone.
  const isRollback = journal.committed && journal.undoing;
  const goesForward = !isRollback && (journal.committed || !(await canUndo(journey, journal)));
  const outcome = goesForward ? ('finished' as const) : ('undone' as const);
  const what = `${journey.task} was interrupted at "${current?.title ?? journal.done.at(-1) ?? 'its start'}"`;
  if (log.withhold(`resume: ${what}; it is ${outcome} first`)) return undefined;
  log.warn(`${what} (${journal.at}): resuming, it is ${outcome} first`);
  if (goesForward) {
    if (!journal.committed) log.warn('the previous state is gone, so it cannot be undone');
    journal.undoing = false;
    await carryOut(journey, journal);
  } else {
    const error = new Error(`interrupted at ${journal.current ?? 'its start'}, undone by the next run`);
    await uninterrupted(() => undoAll(journey, journal));
    await (isRollback ? end(journey, journal, 'done') : end(journey, journal, 'interrupted', error));
  }
  return { outcome, data: journal.data };
}

/** An engine that does not answer says nothing: undoing will tell. */
async function canUndo<Data>({ canUndo }: Journey<Data>, { data }: Journal<Data>): Promise<boolean> {
  return canUndo === undefined || canUndo(data).catch(() => true);
}

async function carryOut<Data>(journey: Journey<Data>, journal: Journal<Data>): Promise<void> {
  try {
    for (const step of journey.steps(journal.data)) {
      if (journal.done.includes(step.name)) continue;
      throwIfInterrupted();
      if (step.commits) await uninterrupted(() => applyStep(journey, journal, step));
      else await applyStep(journey, journal, step);
    }
  } catch (error) {
    await uninterrupted(() => fail(journey, journal, error));
    throw error;
  }
  await end(journey, journal, 'done');
}

async function applyStep<Data>(journey: Journey<Data>, journal: Journal<Data>, step: Step<Data>) {
  const point = `${journey.task}/${step.name}`;
  log.step(step.title);
  journal.current = step.name;
  await save(journey, journal);
  faultPoint(point);
  const began = performance.now();
  await step.apply(journal.data);
  journal.phases[step.name] = Math.round(performance.now() - began) / 1000;
  faultPoint(`${point}/applied`);
  journal.done.push(step.name);
  journal.current = null;
  journal.committed ||= step.commits === true;
  await save(journey, journal);
}

/** Before the commit point: undoes what was done. @throws TaskError with both errors where that fails, too */
async function fail<Data>(journey: Journey<Data>, journal: Journal<Data>, error: unknown): Promise<void> {
  const current = journey.steps(journal.data).find(({ name }) => name === journal.current);
  if (current?.isDone) journal.committed = await current.isDone(journal.data);
  const isInterrupted = (error as { code?: string }).code === 'interrupted';
  const outcome = isInterrupted ? 'interrupted' : 'failed';
  if (journal.committed) {
    await save(journey, journal);
    await writeHistory(journey, journal, outcome, error);
    return;
  }
  // Nothing to bring back: the next run starts from what is there.
  if (!(await canUndo(journey, journal))) return end(journey, journal, outcome, error);
  try {
    await undoAll(journey, journal);
  } catch (undoing) {
    if (!(undoing instanceof TaskError)) throw undoing;
    const message = `${error instanceof Error ? error.message : String(error)}\n${undoing.message}`;
    throw new TaskError(message, { code: undoing.code, hint: undoing.hint, cause: error });
  }
  await end(journey, journal, outcome, error);
}

/** Undoes in reverse order; one that fails does not keep the others from being undone. */
async function undoAll<Data>(journey: Journey<Data>, journal: Journal<Data>): Promise<void> {
  journal.undoing = true;
  const failures: string[] = [];
  const begun = (step: Step<Data>) => journal.done.includes(step.name) || journal.current === step.name;
  for (const step of journey.steps(journal.data).filter(begun).reverse()) {
    await save(journey, journal);
    faultPoint(`${journey.task}/${step.name}/undo`);
    try {
      await step.undo?.(journal.data);
      journal.done = journal.done.filter((name) => name !== step.name);
      if (journal.current === step.name) journal.current = null;
    } catch (error) {
      log.detail(String(error instanceof CommandError ? error.message : ((error as Error).stack ?? error)));
      failures.push(`${step.title}: ${errorSummary(error)}`);
    }
  }
  if (failures.length === 0) return;
  await save(journey, journal);
  throw new TaskError(`Could not undo: ${failures.join('; ')}`, {
    code: 'not-restored',
    hint: `repair the cause, then run: ${journey.command}   (it resumes from here)`,
  });
}

async function end<Data>(
  journey: Journey<Data>,
  journal: Journal<Data>,
  outcome: Outcome,
  error?: unknown,
): Promise<void> {
  await writeHistory(journey, journal, outcome, error);
  faultPoint(`${journey.task}/close`);
  await rm(journalPath(journey.root, journey.task), { force: true });
}

/** Once, also where a run is killed between the line and the end of its journal. */
async function writeHistory<Data>(
  { root, task, history }: Journey<Data>,
  { startedAt, phases, data }: Journal<Data>,
  outcome: Outcome,
  error?: unknown,
): Promise<void> {
  const name = task.split('@')[0]!;
  const last = (await readHistory(root)).at(-1);
  if (last?.task === name && last.at === startedAt && last.outcome === outcome) return;
  await appendHistory(root, { at: startedAt, task: name, outcome, error, phases, ...history(data) });
}

/** True in a dry run: it has printed every command of every step. What depends on a result that it has not ends its step. */
async function simulated<Data>(
  steps: readonly Step<Data>[],
  act: 'apply' | 'undo',
  data: Data,
): Promise<boolean> {
  if (!session.dryRun) return false;
  for (const step of steps) {
    log.step(act === 'undo' ? `undo: ${step.title}` : step.title);
    try {
      await step[act]?.(data);
    } catch (error) {
      if (!session.withheld || (error as { code?: string }).code === 'interrupted') throw error;
      log.detail(`  the simulation ends here: ${errorSummary(error)}`);
    }
  }
  return true;
}
