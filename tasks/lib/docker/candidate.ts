// Trying a freshly built image once, alone: no data, no network neighbours, a port on loopback that the
// engine picks. It must become healthy and say that it is the version and commit it was built from.
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { probe, run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { imageReference, type Project } from '../project.ts';
import { session, uninterrupted } from '../session.ts';
import { askEngine, docker } from './engine.ts';
import { type ExpectedHealth, type HealthAnswer, waitForHealth } from './health.ts';
import { containerIds, imageNames, inspectContainers, lastLogLines } from './objects.ts';
import { withEngineRetries } from './registry.ts';
import { withReach } from './remote.ts';

function candidateLabel(project: Project): string {
  return `release-flow.candidate=${project.project.name}`;
}

/** The command that starts a candidate: the same confinement as in the compose file, nothing shared. */
function candidateCommand(project: Project, image: string, name: string) {
  const { port, env, tmpfs, volumes } = project.candidate;
  return docker(
    'run',
    '--detach',
    '--name',
    name,
    '--label',
    candidateLabel(project),
    // Only what was built here: never what a registry has under this name.
    '--pull=never',
    '--read-only',
    '--init',
    '--cap-drop=ALL',
    '--security-opt=no-new-privileges',
    `--publish=127.0.0.1::${port}`,
    ...volumes.map((path) => `--volume=${path}`),
    ...tmpfs.map((path) => `--tmpfs=${path}:mode=1777`),
    ...Object.entries(env).map(([key, value]) => `--env=${key}=${value}`),
    image,
  );
}

/**
 * Starts the image, waits until it is healthy and the right one, removes it whatever happens.
 * @throws TaskError with the container's last log lines
 */
export async function tryCandidate(
  project: Project,
  image: string,
  expected: ExpectedHealth,
): Promise<HealthAnswer | undefined> {
  const name = `${project.project.name}-candidate-${randomBytes(4).toString('hex')}`;
  try {
    await withEngineRetries(MISSING, () => run(candidateCommand(project, image, name)));
    if (session.dryRun) return undefined;
    return await withReach(async (reach) => {
      const { url, ...by } = await reach(await publishedPort(project, name));
      return waitForHealth({
        url: url + project.candidate.health,
        ...by,
        keys: project.health,
        expected,
        timeoutSeconds: project.candidate.timeout,
        givenUp: () => causeOfDeath(name),
      });
    });
  } catch (error) {
    throw await withLogs(name, image, error);
  } finally {
    await uninterrupted(async () => {
      if (!session.dryRun) await probe(docker('rm', '--force', '--volumes', name));
    });
  }
}

/** An engine that removes another image at that moment was once seen to miss one that it had just loaded. */
const MISSING = /no such image/i;

async function publishedPort(project: Project, name: string): Promise<number> {
  const bindings = z.array(z.object({ HostPort: z.coerce.number() })).nullable();
  const schema = z.object({ NetworkSettings: z.object({ Ports: z.record(z.string(), bindings) }) });
  const { data } = schema.safeParse(await askEngine(`/containers/${encodeURIComponent(name)}/json`));
  // A container that has already died has no ports any more.
  const port = data?.NetworkSettings.Ports[`${project.candidate.port}/tcp`]?.[0]?.HostPort;
  if (port) return port;
  throw new TaskError((await causeOfDeath(name)) ?? 'its port was not published', { code: 'unhealthy' });
}

async function causeOfDeath(name: string): Promise<string | undefined> {
  const [container] = await inspectContainers([name]);
  if (container && ['created', 'running', 'restarting'].includes(container.state)) return undefined;
  return container ? `its container ended with exit code ${container.exitCode}` : 'its container is gone';
}

async function withLogs(name: string, image: string, error: unknown): Promise<unknown> {
  if (!(error instanceof TaskError) || error.code === 'interrupted') return error;
  const logs = await lastLogLines(name).catch(() => '');
  return new TaskError(
    `The image ${image} does not start: ${error.message}${logs ? `\nIts last log lines:\n${logs.replace(/^/gm, '    ')}` : ''}`,
    { code: 'candidate-unhealthy', hint: 'nothing was released; repair it and release again', cause: error },
  );
}

/** Local name of an image that is not released yet. */
export function candidateReference(project: Project, commit: string): string {
  return imageReference(project, `candidate-${commit.startsWith('<') ? 'COMMIT' : commit.slice(0, 12)}`);
}

/** Removes the containers and image names of candidates, a killed run's included. */
export async function removeCandidates(project: Project): Promise<void> {
  const [containers, images] = await Promise.all([
    containerIds({ label: [candidateLabel(project)] }),
    imageNames(imageReference(project, 'candidate-')),
  ]);
  if (containers.length > 0) await run(docker('rm', '--force', '--volumes', ...containers));
  if (images.length > 0) await run(docker('image', 'rm', '--no-prune', ...images));
}
