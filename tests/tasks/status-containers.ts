// Containers that are not well in a chosen way, in the place of an environment's own: what status must tell apart.
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { docker, type TestProject } from './project.ts';

/** Serves /health by this program instead of the app's; `answer` is what a request does. */
function server(answer: string): string {
  return `const fs = require('node:fs');
const body = { env: process.env.APP_ENV, version: process.env.APP_VERSION, revision: process.env.APP_REVISION };
const well = (response, status) => response.writeHead(status).end(JSON.stringify(body));
require('node:http').createServer((request, response) => { ${answer} }).listen(8002);
process.on('SIGTERM', () => process.exit(0));`;
}

export const ILLNESSES = {
  /** Dies at once, each time. */
  crash: 'process.exit(3)',
  /** Answers, but not well; for ever. */
  unhealthy: server('well(response, 503)'),
  /** Not well until it is restarted. */
  once: `${server('well(response, globalThis.sick ? 503 : 200)')}
globalThis.sick = !fs.existsSync('/tmp/started'); fs.writeFileSync('/tmp/started', '');`,
} as const;

const HEALTH_CHECK = `node -e "fetch('http://127.0.0.1:8002').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"`;

interface Replacement {
  illness: keyof typeof ILLNESSES;
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
    ...Object.entries(labels).map(([key, value]) => `--label=${key}=${value}`),
    `--publish=127.0.0.1:${project.ports[environment]}:8002`,
    `--env=APP_ENV=${environment}`,
    `--health-cmd=${HEALTH_CHECK}`,
    '--health-interval=1s',
    '--health-retries=1',
    '--health-start-period=0s',
    '--entrypoint=node',
    image ?? `${project.name}:${environment === 'dev' ? 'latest' : 'v1.0.0'}`,
    '-e',
    ILLNESSES[illness],
  );
  return name;
}

/** Waits for a container to be as `docker inspect` describes it; throws after `seconds`. */
export async function waitForContainer(
  name: string,
  format: string,
  wanted: RegExp,
  seconds = 20,
): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await docker('inspect', '--format', format, name);
    if (wanted.test(found)) return;
    if (Date.now() > deadline) throw new Error(`${name}: ${format} is "${found}", expected ${wanted}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/**
 * A `docker` on PATH that writes each call down and, for calls that begin with one of `answers`, says what a script
 * says; everything else goes to the real one.
 */
export async function fakeDocker(project: TestProject, answers: Record<string, string> = {}) {
  const directory = join(
    project.directory,
    `fake-${Object.keys(answers).join('-').replaceAll(/\W/g, '') || 'log'}`,
  );
  const calls = join(directory, 'calls');
  await mkdir(directory, { recursive: true });
  await writeFile(calls, '');
  const cases = Object.entries(answers).map(([start, script]) => `  "${start}"*) ${script}; exit $? ;;`);
  const lines = [
    '#!/bin/sh',
    `echo "$*" >> ${calls}`,
    ...(cases.length > 0 ? ['case "$*" in', ...cases, 'esac'] : []),
    `PATH=$(echo "$PATH" | sed "s#^${directory}:##") exec docker "$@"`,
  ];
  await writeFile(join(directory, 'docker'), `${lines.join('\n')}\n`);
  await chmod(join(directory, 'docker'), 0o755);
  return { env: { PATH: `${directory}:${process.env.PATH}` }, calls };
}
