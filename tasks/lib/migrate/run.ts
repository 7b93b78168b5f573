// Going through the steps, forwards and backwards. Each is written down before it begins and after it is done;
// what died in between is repeated. A step that fails takes itself back and leaves the choice to a person.
import { TaskError } from '../errors.ts';
import { uninterrupted } from '../interrupt.ts';
import { log } from '../log.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import { type Phases, timed } from '../phases.ts';
import { loadProject, type Project } from '../project.ts';
import { session } from '../session.ts';
import { commitFiles } from './commit.ts';
import { stepTitle } from './describe-steps.ts';
import type { Recorder } from './record.ts';
import type { Step, StepContext } from './step.ts';
import { ALL_STEPS } from './steps.ts';
import { writtenFiles } from './steps-files.ts';
import { isOldRunning } from './steps-service.ts';

export interface Run {
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
