// The tiny project with an even smaller image: a static busybox that serves /health as a file, for two
// platforms, without any RUN. A release of it takes a second or two, so that hundreds can be killed.
import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { installPackages } from '../../tasks/lib/engine/apt.ts';
import { docker, type TestProject, tinyProject } from './project.ts';

const execute = promisify(execFile);
const BASE = 'release-flow-test-base:busybox';

const DOCKERFILE = `ARG NODE_IMAGE
FROM \${NODE_IMAGE}
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.version="\${VERSION}" org.opencontainers.image.revision="\${REVISION}"
COPY <<HEALTH /www/health
{"env":"prod","version":"\${VERSION}","revision":"\${REVISION}"}
HEALTH
COPY note* /www/
USER 1000
ENTRYPOINT ["/bin/busybox", "httpd", "-f", "-p", "8002", "-h", "/www"]
`;

/** Makes the base image under a name of its own; the same bytes give the same image. */
export async function makeBase(reference: string, files: Record<string, string> = {}): Promise<void> {
  if ((await execute('which', ['busybox']).catch(() => undefined)) === undefined)
    await installPackages(['busybox-static']);
  const directory = await mkdtemp(join(tmpdir(), 'release-flow-base-'));
  try {
    await copyFile((await execute('which', ['busybox'])).stdout.trim(), join(directory, 'busybox'));
    for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
    await writeFile(
      join(directory, 'Dockerfile'),
      'FROM scratch\nCOPY . /bin/\nENV PATH=/bin\nLABEL org.release-flow.test="base"\n',
    );
    const archive = join(directory, '..', `${directory.split('/').at(-1)}.tar`);
    const output = `type=oci,dest=${archive},rewrite-timestamp=true`;
    const build = ['buildx', 'build', '--provenance=false', '--build-arg', 'SOURCE_DATE_EPOCH=1700000000'];
    const platforms = ['--platform', 'linux/amd64,linux/arm64'];
    await docker(...build, ...platforms, '--tag', reference, '--output', output, directory);
    await docker('load', '--quiet', '--input', archive);
    await rm(archive, { force: true });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** By engine: a test may have one of its own. */
const bases = new Map<string, Promise<string>>();

async function ensureBase(): Promise<string> {
  const present = await docker('image', 'ls', '--quiet', '--filter', `reference=${BASE}`);
  if (!present) await makeBase(BASE);
  return BASE;
}

/** A project whose releases are quick. */
export async function smallProject(t: TestContext): Promise<TestProject> {
  const engine = process.env.DOCKER_HOST ?? '';
  bases.set(engine, bases.get(engine) ?? ensureBase());
  const reference = (await bases.get(engine)) ?? BASE;
  const project = await tinyProject(t);
  await project.edit('.env', (text) => text.replace(/^TINY_BASE_IMAGE=.*$/m, `TINY_BASE_IMAGE=${reference}`));
  await project.commit('build: a smaller image', { Dockerfile: DOCKERFILE });
  await project.git('push', '--quiet', 'origin', 'main');
  return project;
}

/** Sets a key of release.toml, below its table's heading, and commits. */
export async function configure(project: TestProject, table: string, lines: string): Promise<void> {
  await project.edit('configs/release.toml', (text) =>
    text.includes(`[${table}]`)
      ? text.replace(`[${table}]\n`, `[${table}]\n${lines}\n`)
      : `${text}\n[${table}]\n${lines}\n`,
  );
  await project.commit(`build: configure ${table}`);
  await project.git('push', '--quiet', 'origin', 'main');
}
