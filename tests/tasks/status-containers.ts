// Containers that are not well in a chosen way, in the place of an environment's own: what status must tell apart.
import { queryEngine } from '../../tasks/lib/docker/engine.ts';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';

/** How the tiny app goes wrong: dies at once, each time; is never well; is not well until it is restarted. */
type Illness = 'crash' | 'unhealthy' | 'once';

interface Replacement {
  illness: Illness;
  image?: string;
}

/** Puts a container of that kind in the place of the environment's. */
export async function replaceContainer(
  project: TestProject,
  environment: 'dev' | 'prod',
  { illness, image }: Replacement,
) {
  const name = `${project.name}-${environment}`;
  await docker('rm', '--force', name);
  const labels = {
    'com.docker.compose.project': project.name,
    'com.docker.compose.service': `tiny-${environment}`,
  };
  await docker(
    'run',
    '--detach',
    `--name=${name}`,
    '--restart=always',
    // As compose runs it: a program that is number one itself hears no request to end, and is waited for ten seconds.
    '--init',
    ...Object.entries(labels).map(([key, value]) => `--label=${key}=${value}`),
    `--publish=127.0.0.1:${project.ports[environment]}:8002`,
    `--env=APP_ENV=${environment}`,
    `--env=APP_BEHAVIOUR=${illness}`,
    '--user=0',
    '--health-interval=1s',
    '--health-retries=1',
    '--health-start-period=0s',
    image ?? `${project.name}:${environment === 'dev' ? 'latest' : 'v1.0.0'}`,
  );
  return name;
}

interface Inspected {
  RestartCount: number;
  State: { Health?: { Status: string } };
}

/** Waits for a container to be as `isWanted` says; throws after `seconds`. */
export async function waitForContainer(
  name: string,
  isWanted: (found: Inspected) => boolean,
  seconds = 60,
): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = (await queryEngine(`/containers/${name}/json`)) as Inspected;
    if (isWanted(found)) return;
    if (Date.now() > deadline)
      throw new Error(`${name}: not as expected: ${JSON.stringify(found.State)}, ${found.RestartCount}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

export const isUnhealthy = ({ State }: Inspected) => State.Health?.Status === 'unhealthy';
