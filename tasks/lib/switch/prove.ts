// Proving one environment: its container runs the image that was meant and is healthy, and its /health comes from the
// environment, version and commit that were meant.

import { withEngine } from '../docker/engine.ts';
import { type ExpectedHealth, waitForHealth } from '../docker/health.ts';
import { type Container, type Image, inspectContainers, lastLogLines } from '../docker/objects.ts';
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
  return withEngine(async () => {
    const find = async () => (await inspectContainers([proof.container]))[0];
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
    if (dead) throw new TaskError(`Not healthy: ${proof.address.url} ${dead}`, { code: 'unhealthy' });
  });
}

function causeOfDeath(container: Container | undefined): string | undefined {
  if (!container) return 'its container is gone';
  if (container.state === 'exited' || container.restarts > 0)
    return `container exited with code ${container.exitCode}`;
  return container.health === 'unhealthy' ? 'its container is unhealthy' : undefined;
}

/** Somebody may have re-tagged the image between the check and now. */
function verifyImage(container: Container | undefined, image: ProvenImage): void {
  if (!container || container.imageId === image.id) return;
  throw new TaskError(
    `The image ${container.image} changed during the switch: the container runs ${container.imageId}, expected ${image.id}`,
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

/** Runs a step of starting an environment; a failure names its cause first, then what the container logged last. */
export async function withStartFailure<T>(
  name: EnvironmentName,
  container: string | null,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    throw container ? await uninterrupted(() => startFailure(name, container, error)) : failure(name, error);
  }
}

const LOG_LINES = 5;

async function startFailure(name: EnvironmentName, id: string, error: TaskError): Promise<TaskError> {
  const [container] = await inspectContainers([id]).catch(() => []);
  const logs = await lastLogLines(id).catch(() => '');
  const lines = logs.split('\n').filter(Boolean);
  const died = container && causeOfDeath({ ...container, health: undefined });
  const said = lines.findLast((line) => /error|fatal|panic/i.test(line)) ?? lines.at(-1);
  const cause = died ? `${died}${said ? `: ${said.trim()}` : ''}` : error.message;
  const shown = lines.slice(-LOG_LINES).map((line) => `    ${line}`);
  return failure(name, error, [cause, ...(shown.length > 0 ? ['Last log lines:', ...shown] : [])].join('\n'));
}

function failure(name: EnvironmentName, error: TaskError, cause = error.message): TaskError {
  const wasSlow = / after \d+ s$/.test(error.message) ? '; if it needs longer to start: --wait SECONDS' : '';
  return new TaskError(`Cannot start ${name}: ${cause}`, {
    code: error.code,
    hint: error.hint ?? `the previous state was restored, .env is unchanged${wasSlow}`,
    cause: error,
  });
}
