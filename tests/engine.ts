// The engine that the tests run on: a user's own if one answers, else one that is brought up by the same
// code as `npm run setup` and stopped again at the end (left running where systemd runs it).
import { read } from '../tasks/lib/command.ts';
import { log } from '../tasks/lib/log.ts';
import { loadProject } from '../tasks/lib/project.ts';
import { ensureBaseImage, standInFor } from '../tasks/lib/setup/base-image.ts';
import { observeEngine, planEngine, STANDARD_PLACE } from '../tasks/lib/setup/engine.ts';
import { describeSteps } from '../tasks/lib/steps.ts';

export interface TestEngine {
  baseImage: string;
  stop: () => Promise<void>;
}

/**
 * Makes sure that a usable engine answers; `confirm` gets the plan before any change and throws to refuse it. True if
 * this call started the daemon: then its caller may stop it again.
 */
export async function ensureEngine(confirm: (plan: string[]) => Promise<void>): Promise<boolean> {
  const steps = planEngine(await observeEngine());
  if (steps.length > 0) await confirm(describeSteps(steps));
  for (const { apply } of steps) await apply({});
  return steps.some(({ name }) => name === 'start-engine');
}

/** Stops a dockerd that `startDaemon` started, and its containers with it; a no-op if none runs. */
export async function stopDaemon({ pidFile } = STANDARD_PLACE): Promise<void> {
  const options = ['--stop', '--oknodo', '--pidfile', pidFile, '--name', 'dockerd', '--retry', '30'];
  await read(['start-stop-daemon', ...options]);
}

/** `meanwhile` is done while the base image is fetched. */
export async function bringUpEngine(
  meanwhile: () => Promise<void> | undefined = () => undefined,
): Promise<TestEngine> {
  const started = await ensureEngine(async (plan) =>
    console.error(`Engine for the tests:\n  ${plan.join('\n  ')}`),
  );
  const project = await loadProject();
  const official = project.image.base_image ?? 'node:24-bookworm-slim';
  const standIn = standInFor(project.project.name, official) ?? 'test-node:24';
  const [baseImage] = await Promise.all([ensureBaseImage(official, standIn), meanwhile()]);
  log.idle();
  process.env.TEST_BASE_IMAGE = baseImage;
  return { baseImage, stop: async () => (started ? stopDaemon() : undefined) };
}
