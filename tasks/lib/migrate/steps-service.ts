// The services around the change: the old one stops, the new one starts; and the other way round.
import { run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { inspectContainers, lastLogLines } from '../docker/containers.ts';
import { askHealth } from '../docker/health.ts';
import { TaskError } from '../errors.ts';
import { pause } from '../interrupt.ts';
import { log } from '../log.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { session } from '../session.ts';
import { engineContainers, engineNetworks } from './engine-view.ts';
import { legacyCommand, legacyOptions } from './legacy-compose.ts';
import type { MigrationRecord } from './record.ts';
import { evidenceOfStep, type Step, type StepContext } from './step.ts';
import { exists } from './survey-files.ts';
import { runWholeTask } from './whole-task.ts';

/** Seconds that a service which answered before may take to answer again. */
const ANSWER_SECONDS = 60;

/** The old compose files where they lie at the moment. */
export async function oldCompose({ legacy, plan }: MigrationRecord) {
  const files = await Promise.all(
    legacy.composeFiles.map(async (path) => {
      const deprecated = plan.compose.find((one) => one.path === path)?.deprecated;
      return deprecated && !(await exists(path)) ? deprecated : path;
    }),
  );
  return { project: legacy.project, directory: legacy.directory, composeFiles: files };
}

async function oldContainers({ legacy }: MigrationRecord) {
  return (await engineContainers()).filter(
    ({ labels }) =>
      labels['com.docker.compose.project'] === legacy.project &&
      labels['com.docker.compose.service'] === legacy.service,
  );
}

export const stop: Step = {
  name: 'stop',
  apply: async (context) => {
    const { recorder } = context;
    const { stoppedAt } = evidenceOfStep<{ stoppedAt: string }>(context, 'stop');
    if (!stoppedAt) await recorder.evidence('stop', 'begins', { stoppedAt: new Date().toISOString() });
    const compose = await oldCompose(recorder.record);
    // Never with volumes: they hold what is carried over.
    await run(legacyCommand(compose, 'down'), legacyOptions(compose));
    const left = await oldContainers(recorder.record);
    if (left.length > 0 && !session.dryRun)
      throw new TaskError(`The old service did not stop: ${left.map(({ name }) => name).join(', ')}`);
    return {};
  },
  undo: async ({ recorder: { record } }) => {
    const { legacy, plan } = record;
    if (legacy.state === 'absent') return;
    const compose = await oldCompose(record);
    const isUp = legacy.state === 'running';
    const how = isUp ? ['--detach'] : ['--no-start'];
    await run(legacyCommand(compose, 'up', ...how, '--no-build', '--pull', 'never'), legacyOptions(compose));
    if (isUp && !session.dryRun) await waitForOld(record, plan.answered);
  },
};

/** Until the old service answers, where it did before; else until its container runs. */
async function waitForOld(record: MigrationRecord, shallAnswer: boolean): Promise<void> {
  const deadline = Date.now() + ANSWER_SECONDS * 1000;
  for (;;) {
    const [container] = await oldContainers(record);
    if (container?.isRunning) {
      if (!shallAnswer || (await askHealth(record.plan.oldUrl)).status === 200) return;
    }
    if (Date.now() > deadline || (container && !container.isRunning && shallAnswer)) {
      const logs = container ? await lastLogLines(container.id) : 'it has no container';
      throw new TaskError(`The old service does not answer at ${record.plan.oldUrl}:\n${logs}`, {
        code: 'old-unhealthy',
        hint: 'its data and files are as they were; see its log',
      });
    }
    await pause(200);
  }
}

export const start: Step = {
  name: 'start',
  apply: async (context) => {
    const { project, recorder } = context;
    const { tag } = evidenceOfStep<{ tag: string }>(context, 'images');
    const first = heirOf(recorder.record);
    const answered = session.dryRun ? undefined : firstAnswer(project, first, recorder.record);
    const version = tag ? ['--version', tag] : [];
    try {
      await runWholeTask(project, 'switch-env', first, ...(first === 'prod' ? version : []));
      await runWholeTask(project, 'switch-env', 'both', ...version);
    } finally {
      answered?.stop();
    }
    const at = (await answered?.at) ?? new Date().toISOString();
    const { stoppedAt } = evidenceOfStep<{ stoppedAt: string }>(context, 'stop');
    const downtime = stoppedAt ? (Date.parse(at) - Date.parse(stoppedAt)) / 1000 : 0;
    return { answeredAt: at, downtimeSeconds: recorder.record.legacy.state === 'running' ? downtime : 0 };
  },
  undo: ({ project }) => removeNewContainers(project),
};

/** The environment that takes over the port: clients wait for this one. */
function heirOf({ legacy, plan }: MigrationRecord): EnvironmentName {
  return legacy.ports.includes(plan.ports.dev) ? 'dev' : 'prod';
}

/** The moment at which it answers, asked while it starts. */
function firstAnswer(
  project: Project,
  name: EnvironmentName,
  { plan }: MigrationRecord,
): { at: Promise<string | undefined>; stop: () => void } {
  let isOver = false;
  const url = `http://127.0.0.1:${plan.ports[name]}${project.environments[name].health}`;
  const ask = async () => {
    while (!isOver) {
      if ((await askHealth(url, 1000)).status === 200) return new Date().toISOString();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return undefined;
  };
  return {
    at: ask(),
    stop: () => {
      isOver = true;
    },
  };
}

/** Everything of the new project but its volumes: the old service may need its ports and its subnet. */
async function removeNewContainers(project: Project): Promise<void> {
  const isOwn = (labels: Record<string, string>) =>
    labels['com.docker.compose.project'] === project.project.name;
  const own = (await engineContainers()).filter(({ labels }) => isOwn(labels));
  const running = own.filter(({ isRunning }) => isRunning).map(({ id }) => id);
  if (running.length > 0) {
    log.step(`stopping ${own.map(({ name }) => name).join(' and ')}`);
    await run(docker('stop', ...running));
  }
  const left = await inspectContainers(own.map(({ id }) => id));
  if (left.length > 0) await run(docker('rm', '--force', '--volumes', ...left.map(({ id }) => id)));
  const networks = (await engineNetworks()).filter(({ labels }) => isOwn(labels));
  for (const { name } of networks) await run(docker('network', 'rm', name));
}

/** Not an effect of its own: what is asked of a step that failed. */
export function isOldRunning({ record }: StepContext['recorder']): Promise<boolean> {
  return oldContainers(record).then((containers) => containers.some(({ isRunning }) => isRunning));
}
