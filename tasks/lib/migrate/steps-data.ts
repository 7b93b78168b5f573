// The data: the old directory is set aside as it is, to the last byte, and the new service works on a copy that
// was compared with it. So going back needs no restore, and no mistake of the new service can touch the old data.
import { mkdir, rename, rmdir } from 'node:fs/promises';
import { run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { log } from '../log.ts';
import { session } from '../session.ts';
import { bindMount, containerUser, runProgram } from './container.ts';
import { restoreOwners } from './owners.ts';
import type { DataPlan } from './plan.ts';
import { evidenceOfStep, type Step, type StepContext } from './step.ts';
import { exists } from './survey-files.ts';

/** A rename that a dry run only tells. */
async function move(from: string, to: string): Promise<void> {
  if (session.dryRun) return log.would(`rename: ${from} → ${to}`);
  await rename(from, to);
}

/** On disk before the journal says so: a power cut must not leave a copy that is only remembered. */
const flush = (path: string) => run(process.platform === 'linux' ? ['sync', '-f', path] : ['sync']);

const remove = (path: string) => run(['rm', '-rf', '--', path]);

/** Is the new data in its place? With one place for both, only then is the old one aside. */
async function isInPlace({ aside, to, copy }: DataPlan): Promise<boolean> {
  return aside ? (await exists(aside)) && (await exists(to)) : !(await exists(copy)) && (await exists(to));
}

export const data: Step = {
  name: 'data',
  apply: async (context) => {
    const { project, recorder } = context;
    const { data: plan } = recorder.record.plan;
    const { copied } = evidenceOfStep<{ copied: boolean }>(context, 'data');
    if (!copied) {
      await remove(plan.copy);
      await run(['cp', '-a', '--', plan.from, plan.copy]);
      await compareCopy(plan.from, plan.copy);
      await run(['chown', '-h', '-R', containerUser(project), plan.copy]);
      await run(['chmod', '0700', plan.copy]);
      await flush(plan.copy);
      await recorder.evidence('data', 'copied', { copied: true });
    }
    if (!(await isInPlace(plan)) || session.dryRun) {
      if (plan.aside && !(await exists(plan.aside))) await move(plan.from, plan.aside);
      if (!plan.aside && (await exists(plan.to)) && !session.dryRun) await rmdir(plan.to);
      await move(plan.copy, plan.to);
      await flush(plan.to);
    }
    return { original: plan.aside ?? plan.from };
  },
  undo: async (context) => {
    const { recorder } = context;
    const { data: plan } = recorder.record.plan;
    if (recorder.record.keepNewData) await bringNewDataBack(context, plan);
    else await putNewDataAside(context, plan);
    await remove(plan.copy);
  },
};

async function compareCopy(from: string, copy: string): Promise<void> {
  try {
    await run(['diff', '-rq', '--no-dereference', from, copy]);
  } catch (error) {
    if ((error as { code?: string }).code === 'interrupted') throw error;
    throw new TaskError(`The copy of ${from} is not the same: ${(error as Error).message}`, {
      code: 'copy-differs',
      hint: 'does something else still write there?',
      cause: error,
    });
  }
}

async function putNewDataAside(context: StepContext, plan: DataPlan): Promise<void> {
  const isNewThere = plan.aside ? await exists(plan.aside) : await hasOwnCopy(context, plan);
  if (!isNewThere) return;
  if (await exists(plan.to)) {
    if (context.recorder.record.hasStarted) {
      // it may hold what is nowhere else
      await move(plan.to, plan.kept);
      log.info(`  what the new service has written is kept: ${plan.kept}`);
    } else await remove(plan.to);
  }
  if (plan.aside) await move(plan.aside, plan.from);
  else await remakeEmptyTarget(plan);
}

/** With two places: the new one is ours only from the moment at which the copy was complete. */
async function hasOwnCopy(context: StepContext, plan: DataPlan): Promise<boolean> {
  const { copied } = evidenceOfStep<{ copied: boolean }>(context, 'data');
  return copied === true && !(await exists(plan.copy));
}

async function remakeEmptyTarget({ emptyTarget, to }: DataPlan): Promise<void> {
  if (!emptyTarget || session.dryRun || (await exists(to))) return;
  await mkdir(to, { mode: emptyTarget.mode });
  await run(['chown', `${emptyTarget.uid}:${emptyTarget.gid}`, to]);
  await run(['chmod', emptyTarget.mode.toString(8), to]);
}

/** The old service goes on with what the new one has written, in the form and with the owners that it knows. */
async function bringNewDataBack(context: StepContext, plan: DataPlan): Promise<void> {
  const { recorder, project } = context;
  const { settled } = evidenceOfStep<{ settled: boolean }>(context, 'data');
  const original = plan.aside ?? plan.from;
  const before = `${plan.from}.before-rollback-${recorder.record.id}`;
  if (!settled) {
    const there = plan.aside ? await exists(plan.aside) : await hasOwnCopy(context, plan);
    if (!there) return;
    await runProgram(project, { command: 'settle', mounts: [bindMount(plan.to, '/data', 'writable')] });
    if (!plan.aside) {
      await remove(plan.copy);
      await run(['cp', '-a', '--', plan.to, plan.copy]);
    }
    await restoreOwners(plan.aside ? plan.to : plan.copy, original, plan.owner);
    await recorder.evidence('data', 'settled', { settled: true });
  }
  // With one place, the data is already where the old service looks for it.
  if (plan.aside) return;
  if (!(await exists(before))) await move(plan.from, before);
  if (await exists(plan.copy)) await move(plan.copy, plan.from);
  if (await exists(plan.to)) await move(plan.to, plan.kept);
  await remakeEmptyTarget(plan);
}
