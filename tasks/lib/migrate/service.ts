// Stopping and starting: the old service, which must answer again if anything goes wrong, and the new one.
import { run } from '../command.ts';
import { docker } from '../docker/engine.ts';
import { queryHealth } from '../docker/health.ts';
import { lastLogLines, listNetworks, projectContainers } from '../docker/objects.ts';
import { errorSummary, TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { log } from '../log.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { waitUntil } from '../session.ts';
import { resumeSwitch } from '../switch/run.ts';
import { runOtherTask } from '../task.ts';
import { inventoryPath } from './data.ts';
import { allContainers, type ComposeHandle, legacyCommand } from './detect.ts';
import { exists } from './kept.ts';
import { describedLegacy } from './plan.ts';
import type { Migration } from './report.ts';
import { inventorySchema, verifyData, verifyReadable } from './verify.ts';

/** For how long a service that answered before may take to answer again. */
const ANSWER_SECONDS = 60;

/** The old compose files where they are at the moment. */
export async function oldCompose({ legacy, plan }: Migration): Promise<ComposeHandle> {
  const { project, directory } = legacy;
  const files = plan.compose.map(async ({ path, deprecated }) => ((await exists(path)) ? path : deprecated));
  return { project, directory, composeFiles: await Promise.all(files) };
}

async function oldContainers({ legacy }: Migration) {
  const label = 'com.docker.compose';
  return (await allContainers()).filter(
    ({ labels }) =>
      labels[`${label}.project`] === legacy.project && labels[`${label}.service`] === legacy.service,
  );
}

export async function stopOld(_project: Project, data: Migration): Promise<void> {
  data.stoppedAt = new Date().toISOString();
  // Never with volumes: they hold what is carried over.
  await run(legacyCommand(await oldCompose(data), 'down'));
  const left = await oldContainers(data);
  if (left.length > 0)
    throw new TaskError(`The old service did not stop: ${left.map(({ name }) => name).join(', ')}`);
}

export async function startOld(_project: Project, data: Migration): Promise<void> {
  const { legacy, plan } = data;
  if (legacy.state === 'absent') return;
  const how = legacy.state === 'running' ? '--detach' : '--no-start';
  await run(legacyCommand(await oldCompose(data), 'up', how, '--no-build', '--pull', 'never'));
  if (legacy.state !== 'running' || log.withhold(`wait until ${plan.oldUrl} answers`)) return;
  const answers = await waitUntil(
    async () => {
      const [container] = await oldContainers(data);
      if (container && container.state !== 'running') return false;
      const isWell = !plan.answered || (await queryHealth(plan.oldUrl)).status === 200;
      return (container && isWell) || undefined;
    },
    { withinMs: ANSWER_SECONDS * 1000, everyMs: 200 },
  );
  if (answers) return;
  const [container] = await oldContainers(data);
  const logs = container ? await lastLogLines(container.id) : 'it has no container';
  throw new TaskError(`The old service does not answer at ${plan.oldUrl}:\n${logs}`, {
    code: 'old-unhealthy',
    hint: 'its data and files are restored; see its log',
  });
}

const healthUrl = (project: Project, { plan }: Migration, name: EnvironmentName) =>
  `http://127.0.0.1:${plan.ports[name]}${project.environments[name].health}`;

/** Starts this environment: the first alone, the other one beside it. */
export const startNew = (name: EnvironmentName) => async (project: Project, data: Migration) => {
  const isFirst = name === data.plan.first;
  const version = data.tag && (name === 'prod' || !isFirst) ? ['--version', data.tag] : [];
  await runOtherTask(project, 'switch-env', isFirst ? name : 'both', ...version);
  if (isFirst && data.stoppedAt && data.legacy.state === 'running')
    data.downtimeSeconds = (Date.now() - Date.parse(data.stoppedAt)) / 1000;
};

/** Removes everything of the new project but its volumes: the old service may need its ports and its subnet. */
export async function removeNew(project: Project, data: Migration): Promise<void> {
  // A switch that was killed with us would be resumed by the next one.
  await resumeSwitch(project).catch((error) => log.warn(`the interrupted switch: ${errorSummary(error)}`));
  data.hasStarted = true;
  const own = await projectContainers(project);
  const running = own.filter(({ state }) => state === 'running').map(({ id }) => id);
  if (running.length > 0) await run(docker('stop', ...running));
  if (own.length > 0) await run(docker('rm', '--force', '--volumes', ...own.map(({ id }) => id)));
  for (const { name, labels } of await listNetworks())
    if (labels['com.docker.compose.project'] === project.project.name)
      await run(docker('network', 'rm', name));
}

export async function verifyFirst(project: Project, data: Migration): Promise<void> {
  const { first, data: places } = data.plan;
  const url = healthUrl(project, data, first);
  const { status, error } = await queryHealth(url);
  if (status !== 200)
    throw new TaskError(`${first} does not answer at ${url}: ${error ?? status}`, { code: 'unhealthy' });
  const before = inventorySchema.parse(JSON.parse((await readIfPresent(inventoryPath(project))) ?? ''));
  const description = describedLegacy(project);
  data.verified = await verifyData(project, description, before, places.to, data.stoppedAt!);
  await verifyFacts(first)(project, data);
}

export const verifyFacts = (name: EnvironmentName) => async (project: Project, data: Migration) => {
  const { ports, data: places } = data.plan;
  const description = describedLegacy(project);
  data.readable[name] = await verifyReadable(project, description, places.to, name, ports[name]);
};
