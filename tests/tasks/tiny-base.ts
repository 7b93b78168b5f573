// The base image of the tiny app: a static busybox, for two platforms. A release on it takes a second or two and a
// container of it starts at once, so that hundreds can be killed.
import { copyFile, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureProgram } from '../programs.ts';
import { docker } from './processes.ts';

const BASE = 'release-flow-test-base:sh';

/** Makes the base image under a name of its own; the same bytes give the same image. */
export async function makeBase(reference: string, files: Record<string, string> = {}): Promise<void> {
  const busybox = await ensureProgram('busybox');
  const directory = await mkdtemp(join(tmpdir(), 'release-flow-base-'));
  try {
    await copyFile(busybox, join(directory, 'busybox'));
    // For scripts that begin with it.
    await symlink('busybox', join(directory, 'sh'));
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

/** The base image on the engine of this process; made once. */
export async function tinyBase(): Promise<string> {
  const engine = process.env.DOCKER_HOST ?? '';
  const base = bases.get(engine) ?? ensureBase();
  bases.set(engine, base);
  return base;
}
