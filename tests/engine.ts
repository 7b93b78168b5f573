// The engine that the tests run on: a user's own if one answers, else one that is brought up by the same
// code as `npm run setup` and stopped again at the end (left running where systemd runs it).
import { log } from '../tasks/lib/log.ts';
import { loadProject } from '../tasks/lib/project.ts';
import { ensureBaseImage, standInFor } from '../tasks/lib/setup/base-image.ts';
import { stopDaemon } from '../tasks/lib/setup/daemon.ts';
import { ensureEngine } from '../tasks/lib/setup/setup.ts';

export interface TestEngine {
  baseImage: string;
  stop: () => Promise<void>;
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
