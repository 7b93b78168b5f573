// What a migration writes down: everything that is needed to continue it, to undo it, and to say where it
// stands. It outlives the migration, until --finish: a rollback may come days later.

import { probe, run } from '../command.ts';
import { docker } from '../docker/engine.ts';
import { inspectImage } from '../docker/objects.ts';
import { combinedError, TaskError } from '../errors.ts';
import { readIfPresent, replaceFile, statePath } from '../files.ts';
import { type Phases, timed } from '../history.ts';
import { log } from '../log.ts';
import { type Journal, openJournal, readJournal } from '../old-journal.ts';
import { loadProject, type Project } from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { session, uninterrupted } from '../session.ts';
import { runOtherTask } from '../task.ts';
import { stepTitle } from './describe.ts';
import { engineContainers, engineVolume, exists, type Legacy, removeVolume } from './detect.ts';
import type { MigrationPlan } from './plan.ts';
import {
  ALL_STEPS,
  commitFiles,
  forget,
  isOldRunning,
  type Step,
  type StepContext,
  type StepName,
  writtenFiles,
} from './steps.ts';

export type StepEvidence = Record<string, unknown>;

interface StepRecord {
  state: 'started' | 'done' | 'undoing';
  /** ISO 8601, UTC. */
  startedAt: string;
  doneAt?: string;
  evidence: StepEvidence;
}

type MigrationState = 'migrating' | 'migrated' | 'rolling-back' | 'rolled-back' | 'finishing' | 'finished';

export interface MigrationRecord {
  /** Distinguishes what this migration sets aside from what another one did: its time, `20260131-235959`. */
  id: string;
  state: MigrationState;
  startedAt: string;
  endedAt?: string;
  keepNewData: boolean;
  /** The new service may have written to its data. */
  hasStarted: boolean;
  legacy: Legacy;
  plan: MigrationPlan;
  steps: Partial<Record<StepName, StepRecord>>;
}

/** Where the record lies between migration and rollback: a journal there would say that something is unfinished. */
const settledPath = (root: string) => statePath(root, 'migration.json');

export interface StoredRecord {
  record: MigrationRecord;
  /** The last thing that was noted, of a run that did not come to its end. */
  interruptedAt: { step: string; at: string } | undefined;
}

export async function readRecord(root: string): Promise<StoredRecord | undefined> {
  const journal = await readJournal<MigrationRecord>(root, 'migrate');
  if (journal) return { record: journal.data, interruptedAt: { step: journal.step, at: journal.at } };
  const text = await readIfPresent(settledPath(root));
  return text === undefined
    ? undefined
    : { record: JSON.parse(text) as MigrationRecord, interruptedAt: undefined };
}

/** Makes every change of the record durable before the caller goes on. */
export class Recorder {
  readonly record: MigrationRecord;
  readonly #root: string;
  readonly #journal: Journal<MigrationRecord>;

  constructor(root: string, record: MigrationRecord) {
    this.record = record;
    this.#root = root;
    this.#journal = openJournal<MigrationRecord>(root, 'migrate');
  }

  async note(point: string, change: (record: MigrationRecord) => void): Promise<void> {
    const draft = structuredClone(this.record);
    change(draft);
    await this.#journal.record(point, draft);
    Object.assign(this.record, draft);
  }

  /** The run comes to its end: the record stays, for a rollback in days to come. */
  async settle(state: MigrationState): Promise<void> {
    await this.note(state, (record) => {
      record.state = state;
      record.endedAt = new Date().toISOString();
    });
    if (!session.dryRun)
      await replaceFile(settledPath(this.#root), `${JSON.stringify(this.record, null, 2)}\n`, {
        mode: 0o600,
      });
    await this.#journal.close();
  }

  /** What a step found out on its way. */
  evidence(step: StepName, point: string, evidence: StepEvidence): Promise<void> {
    return this.note(`${step}-${point}`, ({ steps }) => {
      Object.assign(steps[step]!.evidence, evidence);
    });
  }
}

export function newRecord(legacy: Legacy, plan: MigrationPlan, now: Date): MigrationRecord {
  return {
    id: plan.id,
    state: 'migrating',
    startedAt: now.toISOString(),
    keepNewData: false,
    hasStarted: false,
    legacy,
    plan,
    steps: {},
  };
}

// Going through the steps, forwards and backwards. Each is written down before it begins and after it is done;
// what died in between is repeated. A step that fails takes itself back and leaves the choice to a person.

interface Run {
  project: Project;
  description: LegacyDescription;
  recorder: Recorder;
  phases: Phases;
}

async function contextOf({ project, description, recorder }: Run): Promise<StepContext> {
  return { project: await loadProject(project.root), description, recorder };
}

/** Carries the migration on to its end. @throws TaskError saying what failed and both ways on */
export async function migrateForward(run: Run): Promise<void> {
  const { recorder } = run;
  for (const step of ALL_STEPS) {
    if (recorder.record.steps[step.name]?.state === 'done') continue;
    await forward(run, step);
  }
  await recorder.settle('migrated');
}

async function forward(run: Run, step: Step): Promise<void> {
  const { recorder, phases } = run;
  const { name } = step;
  log.step(stepTitle(recorder.record, name));
  await recorder.note(`${name}-started`, (record) => {
    const evidence = record.steps[name]?.evidence ?? {};
    record.steps[name] = { state: 'started', startedAt: new Date().toISOString(), evidence };
    if (name === 'start') record.hasStarted = true;
  });
  try {
    const evidence = await timed(phases, name, async () => step.apply(await contextOf(run)));
    await recorder.note(`${name}-done`, ({ steps }) => {
      const before = steps[name]!;
      const doneAt = new Date().toISOString();
      steps[name] = { ...before, state: 'done', doneAt, evidence: { ...before.evidence, ...evidence } };
    });
  } catch (error) {
    throw await failed(run, step, error);
  }
}

const GO_ON = 'npx tsx tasks/migrate.ts --yes';
const GO_BACK = 'npx tsx tasks/migrate.ts --rollback';

async function failed(run: Run, step: Step, error: unknown): Promise<unknown> {
  if (!(error instanceof TaskError)) return error;
  if (error.code === 'interrupted') {
    log.info(`  hint: it goes on from here: ${GO_ON}\n        or back: ${GO_BACK}`);
    return error;
  }
  const undone = await uninterrupted(async () => {
    await step.undo(await contextOf(run));
    await run.recorder.note(`${step.name}-undone`, ({ steps }) => {
      delete steps[step.name];
    });
  }).then(
    () => 'what it did is taken back',
    (second: Error) => `taking it back failed as well: ${second.message}`,
  );
  const isRunning = await uninterrupted(() => isOldRunning(run.recorder)).catch(() => false);
  const now = isRunning ? 'the old service runs' : 'neither service is sure to run now';
  return new TaskError(`The step "${step.name}" failed: ${error.message}`, {
    code: error.code,
    exitCode: error.exitCode,
    cause: error,
    hint: [
      ...(error.hint ? [error.hint] : []),
      `${undone}; ${now}`,
      `once the cause is gone, go on: ${GO_ON}`,
      `or go back to the old service: ${GO_BACK}`,
    ].join('\n'),
  });
}

/** Takes every step back, the last one first. @throws TaskError saying how to go on */
export async function migrateBack(run: Run): Promise<void> {
  const { recorder, phases } = run;
  for (const step of [...ALL_STEPS].reverse()) {
    const { name } = step;
    if (!recorder.record.steps[name]) continue;
    log.step(`take back: ${stepTitle(recorder.record, name)}`);
    await recorder.note(`undo-${name}-started`, ({ steps }) => {
      steps[name]!.state = 'undoing';
    });
    try {
      await timed(phases, `undo ${name}`, async () => step.undo(await contextOf(run)));
    } catch (error) {
      throw backFailed(step, error);
    }
    await recorder.note(`undo-${name}-done`, ({ steps }) => {
      delete steps[name];
    });
  }
  const context = await contextOf(run);
  const message = `chore: go back to ${recorder.record.legacy.service}`;
  if (!session.dryRun) await commitFiles(context.project, await writtenFiles(context), message);
  await recorder.settle('rolled-back');
}

function backFailed(step: Step, error: unknown): unknown {
  if (!(error instanceof TaskError) || error.code === 'interrupted') return error;
  return new TaskError(`Cannot take the step "${step.name}" back: ${error.message}`, {
    code: error.code,
    cause: error,
    hint: [...(error.hint ? [error.hint] : []), `once the cause is gone: ${GO_BACK}`].join('\n'),
  });
}

// Is there still everything that a rollback needs? Asked before it begins: once the old pieces are gone, going
// back is refused with what is missing.

/** @throws TaskError naming every old piece that is gone */
export async function verifyRollback(record: MigrationRecord): Promise<void> {
  const { legacy, plan, steps } = record;
  if (record.state === 'finished' || record.state === 'finishing') {
    const archive = steps.backup?.evidence.archive;
    throw new TaskError(`Cannot go back: the old pieces were removed by --finish at ${record.endedAt}`, {
      code: 'finished',
      hint: `the data of that time is in the backup ${archive}`,
    });
  }
  const isOldDataThere =
    (await exists(legacy.data.path)) || (plan.data.aside !== null && (await exists(plan.data.aside)));
  const files = [
    ...plan.compose,
    ...(legacy.isRebuilt ? legacy.composeFiles.map((path) => ({ path, deprecated: path })) : []),
  ];
  const missing = [
    ...(isOldDataThere &&
    (!plan.data.aside || !steps.data || steps.data.state !== 'done' || (await exists(plan.data.aside)))
      ? []
      : [`the old data ${plan.data.aside ?? legacy.data.path}`]),
    ...(await Promise.all(
      files.map(async ({ path, deprecated }) =>
        (await exists(path)) || (await exists(deprecated)) ? [] : [`the old compose file ${deprecated}`],
      ),
    )),
    ...(legacy.state === 'absent' || (await inspectImage(legacy.image))
      ? []
      : [`the old image ${legacy.image}`]),
    ...(legacy.models === undefined || (await engineVolume(legacy.models))
      ? []
      : [`the models volume ${legacy.models}`]),
  ].flat();
  if (missing.length === 0) return;
  const problems = missing.map((what) => new TaskError(`gone: ${what}`, { code: 'old-pieces-gone' }));
  throw combinedError('Cannot go back to the old service; nothing was changed:', [...problems], {
    code: 'old-pieces-gone',
    hint: `the data of that time is in the backup ${steps.backup?.evidence.archive ?? '(none was made)'}`,
  });
}

// The end of the way back: after some days the old pieces are removed, each only if nobody uses it.

interface OldPieces {
  directory: string | undefined;
  image: string | undefined;
  volume: string | undefined;
}

/** What of the older setup is still there and of no use to the new one. */
export async function oldPieces({ legacy, plan }: MigrationRecord): Promise<OldPieces> {
  const directory = plan.data.aside ?? plan.data.from;
  const isUsed = (await engineContainers()).some(({ image }) => image === legacy.image);
  return {
    directory: (await exists(directory)) ? directory : undefined,
    image: !isUsed && (await inspectImage(legacy.image)) ? legacy.image : undefined,
    volume:
      plan.models.by === 'copy' && (await engineVolume(plan.models.from)) ? plan.models.from : undefined,
  };
}

export function describePieces({ directory, image, volume }: OldPieces): string[] {
  return [
    ...(directory ? [`remove the old data ${directory}`] : []),
    ...(image ? [`remove the image ${image}`] : []),
    ...(volume ? [`remove the old models volume ${volume}`] : []),
  ];
}

/** The record of what can be finished. @throws TaskError before the grace period is over, or if there is nothing to finish */
export function verifyFinish(
  description: LegacyDescription,
  record: MigrationRecord | undefined,
  now: Date,
): MigrationRecord {
  if (!record || (record.state !== 'migrated' && record.state !== 'finishing')) {
    throw new TaskError('There is no migration to finish', {
      code: 'nothing-to-finish',
      hint: 'where it stands: npx tsx tasks/migrate.ts --status',
    });
  }
  const ends = new Date(Date.parse(record.endedAt ?? record.startedAt) + description.grace_days * 86_400_000);
  if (now >= ends || record.state === 'finishing') return record;
  throw new TaskError(
    `The old pieces stay until ${ends.toISOString()}, ${description.grace_days} days from the migration`,
    {
      code: 'grace-period',
      hint: 'a rollback needs them; migrate.grace_days in configs/release.toml says how long',
    },
  );
}

export async function removeOldPieces(
  project: Project,
  recorder: Recorder,
  pieces: OldPieces,
): Promise<void> {
  await recorder.note('finishing', (record) => {
    record.state = 'finishing';
  });
  if (pieces.directory) await run(['rm', '-rf', '--', pieces.directory]);
  if (pieces.image) {
    const answer = await probe(docker('image', 'rm', pieces.image));
    if (!answer.ok) log.warn(`${pieces.image} stays: ${answer.stderr.trim()}`);
  }
  const users = pieces.volume ? await removeVolume(pieces.volume) : [];
  if (users.length > 0) log.warn(`${pieces.volume} stays: ${users.join(', ')} uses it`);
  await recorder.settle('finished');
  await forget(project.root, recorder.record.id);
}

// Steps that are whole tasks. A dry run only names them: what they would look at is not there yet.

export async function runWholeTask(project: Project, name: string, ...argv: string[]): Promise<void> {
  if (session.dryRun) tellWholeTask(name, ...argv);
  else await runOtherTask(project, name, ...argv);
}

export function tellWholeTask(name: string, ...argv: string[]): void {
  log.withhold(`run: ${['npx tsx', `tasks/${name}.ts`, ...argv].join(' ')}`);
}
