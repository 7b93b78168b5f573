// Single containers of the built image, for tests of the service that need no environment around it.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { queryHealth } from '../../tasks/lib/docker/health.ts';
import { waitUntil } from '../../tasks/lib/session.ts';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';

export interface Started {
  name: string;
  url: string;
  port: number;
}

/** A folder of configuration files, readable by the container's user. */
export async function configFolder(
  project: TestProject,
  folder: string,
  files: Record<string, object | string>,
): Promise<string> {
  const path = join(project.directory, folder);
  await mkdir(path);
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(path, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return path;
}

/** Starts a container with a port of its own on loopback; the project's `remove` removes it. */
export async function startContainer(
  project: TestProject,
  name: string,
  options: string[],
): Promise<Started> {
  const fullName = `${project.name}-${name}`;
  const label = `com.docker.compose.project=${project.name}`;
  const common = ['--detach', '--name', fullName, '--label', label, '--publish', '127.0.0.1::8002'];
  await docker('run', ...common, ...options, `${project.name}:latest`);
  const address = await docker('port', fullName, '8002/tcp').catch(() => '');
  return { name: fullName, url: `http://${address}`, port: Number(address.split(':')[1]) };
}

/** The answer of /health as soon as there is one. @throws Error with the container's log after `seconds` */
export async function answeredHealth(container: Started, seconds = 60): Promise<Record<string, unknown>> {
  const ask = async () => {
    const { status, body } = await queryHealth(`${container.url}/health`);
    return status === 0 ? undefined : body;
  };
  const body = await waitUntil(ask, { withinMs: seconds * 1000, everyMs: 50 });
  if (!body) throw new Error(await docker('logs', container.name));
  return body;
}
