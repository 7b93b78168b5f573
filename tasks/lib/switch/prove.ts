// Proving one environment: its container runs the image that was meant and is healthy, and its /health comes from the
// environment, version and commit that were meant.

import { withEngine } from '../docker/engine.ts';
import { type ExpectedHealth, waitForHealth } from '../docker/health.ts';
import { type Container, type Image, lastLogLines, parseContainers } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import type { HttpAddress } from '../http.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { uninterrupted, waitUntil } from '../session.ts';

const VERSION_LABEL = 'org.opencontainers.image.version';
const REVISION_LABEL = 'org.opencontainers.image.revision';

type ProvenImage = Pick<Image, 'id' | 'labels'>;

export function expectedHealth(name: EnvironmentName, image: ProvenImage | undefined): ExpectedHealth {
  return { env: name, version: image?.labels[VERSION_LABEL], revision: image?.labels[REVISION_LABEL] };
}

interface Proof {
  environment: EnvironmentName;
  /** Id of the container that was started. */
  container: string;
  address: HttpAddress;
  image: ProvenImage;
  seconds: number;
}

/** Waits until the container and its /health are both well, and the right ones. @throws TaskError */
export function proveHealthy(project: Project, proof: Proof): Promise<void> {
  // One connection for all the questions: a process each would slow down the very start that is waited for.
  return withEngine(async (ask) => {
    const find = async (): Promise<Container | undefined> => {
      const found = await ask(`/containers/${encodeURIComponent(proof.container)}/json`);
      return found === undefined ? undefined : parseContainers([found])[0];
    };
    const givenUp = async () => causeOfDeath(await find());
    verifyImage(await find(), proof.image);
    await waitForHealth({
      ...proof.address,
      keys: project.health,
      expected: expectedHealth(proof.environment, proof.image),
      timeoutSeconds: proof.seconds,
      givenUp,
    });
    await waitForCheck(find, proof.seconds);
    const dead = await givenUp();
    if (dead) throw new TaskError(`Not healthy: ${proof.address.url}: ${dead}`, { code: 'unhealthy' });
  });
}

function causeOfDeath(container: Container | undefined): string | undefined {
  if (!container) return 'its container is gone';
  if (container.state === 'exited' || container.restarts > 0)
    return `its container ended with exit code ${container.exitCode}`;
  return container.health === 'unhealthy' ? 'its container is unhealthy' : undefined;
}

/** Somebody may have re-tagged the image between the check and now. */
function verifyImage(container: Container | undefined, image: ProvenImage): void {
  if (!container || container.imageId === image.id) return;
  throw new TaskError(
    `The image ${container.image} changed meanwhile: the container runs ${container.imageId}, checked was ${image.id}`,
    { code: 'image-changed', hint: 'somebody built or re-tagged it at the same time; switch again' },
  );
}

/** /health is well; the engine's own check may still have to come to the same result. */
async function waitForCheck(find: () => Promise<Container | undefined>, seconds: number): Promise<void> {
  const settled = async () => ((await find())?.health === 'starting' ? undefined : true);
  if (await waitUntil(settled, { withinMs: seconds * 1000, everyMs: 50 })) return;
  throw new TaskError(`Not healthy: its health check has not passed after ${seconds} s`, {
    code: 'unhealthy',
  });
}

/** The error of an environment that did not start, with what its container said last. */
export async function startFailure(
  name: EnvironmentName,
  container: string,
  error: unknown,
): Promise<unknown> {
  if (!(error instanceof TaskError) || error.code === 'interrupted') return error;
  const logs = container ? await uninterrupted(() => lastLogLines(container)).catch(() => '') : '';
  const tail = logs ? `\nLast log lines of its container:\n${logs.replace(/^/gm, '    ')}` : '';
  return new TaskError(`Cannot start ${name}: ${error.message}${tail}`, {
    code: error.code,
    hint: error.hint ?? 'what ran before runs again; .env is unchanged',
    cause: error,
  });
}

/** Runs a step of starting an environment; a failure comes with what its container said last. */
export async function withStartFailure<T>(
  name: EnvironmentName,
  container: string | null,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw await startFailure(name, container ?? '', error);
  }
}
