// For a project whose image has no backup program: an image with it, as the released service has it.
import { rmSync } from 'node:fs';
import { copyFile, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { BACKUP } from '../service/programs.ts';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';

let context: Promise<string> | undefined;

/** What the image is built from. */
async function makeContext(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'backup-image-'));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  await copyFile(BACKUP, join(directory, 'backup.mjs'));
  const base = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
  await writeFile(join(directory, 'Dockerfile'), `FROM ${base}\nCOPY backup.mjs /app/\n`);
  return directory;
}

/** Builds it for this project; it goes with the test. */
export async function backupImage(t: TestContext, project: TestProject): Promise<string> {
  const image = `${project.name}-backup:1`;
  t.after(() => docker('image', 'rm', '--force', image).catch(() => ''));
  context ??= makeContext();
  await docker('build', '--quiet', '--tag', image, await context);
  return image;
}
