// What can be made ready while the old service still answers: this machine, and the images.
import { mkdir } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { probe, read, run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { engineInfo } from '../docker/engine-info.ts';
import { inspectImage, tagImage } from '../docker/images.ts';
import { dotenvPath } from '../dotenv.ts';
import { applySetup, planSetup } from '../engine/setup.ts';
import { readIfPresent, writeFileAtomic } from '../files.ts';
import { git } from '../git.ts';
import { log } from '../log.ts';
import { imageReference, loadProject, type Project, registryReference, variable } from '../project.ts';
import { newestRelease } from '../release/releases.ts';
import { session } from '../session.ts';
import { fetchRelease } from '../switch/target.ts';
import { removeLeftovers } from './container.ts';
import { keepFile, restoreFile } from './kept-files.ts';
import type { MigrationRecord } from './record.ts';
import type { Step } from './step.ts';
import { runWholeTask } from './whole-task.ts';

/** Files of the older setup inside this repository that git does not know: they stay, and it need not see them. */
export async function strangers(project: Project, paths: readonly string[]): Promise<string[]> {
  const inside = paths.map((path) => relative(project.root, path)).filter((path) => !path.startsWith('..'));
  if (inside.length === 0) return [];
  const known = await read(git(project.root, 'ls-files', '-z', '--', ...inside));
  return inside.filter((path) => !known.split('\0').includes(path));
}

async function excludeFile(root: string): Promise<string> {
  return join(root, await read(git(root, 'rev-parse', '--git-path', 'info/exclude'), { cwd: root }));
}

async function excludePaths(project: Project, paths: readonly string[]): Promise<void> {
  const path = await excludeFile(project.root);
  const text = (await readIfPresent(path)) ?? '';
  const missing = paths.map((one) => `/${one}`).filter((line) => !text.split('\n').includes(line));
  if (missing.length === 0) return;
  if (!session.dryRun) await mkdir(dirname(path), { recursive: true });
  const separator = text === '' || text.endsWith('\n') ? '' : '\n';
  await writeFileAtomic(path, `${text}${separator}${missing.join('\n')}\n`);
}

/** Every path of the older setup that may lie in this repository. */
export function oldPaths(
  { legacy, plan }: Pick<MigrationRecord, 'legacy' | 'plan'>,
  configs: readonly string[],
) {
  const compose = plan.compose.flatMap(({ path, deprecated }) => [path, deprecated]);
  return [...compose, ...configs.map((file) => join(legacy.directory, file))];
}

export const prepare: Step = {
  name: 'prepare',
  apply: async ({ project, description, recorder }) => {
    const { record } = recorder;
    await removeLeftovers(project);
    await keepFile(project.root, record.id, dotenvPath(project.root));
    await keepFile(project.root, record.id, await excludeFile(project.root));
    await excludePaths(project, await strangers(project, oldPaths(record, description.config_files)));
    // The directory is the old service's still; its copy gets owner and mode.
    await applySetup(project, { ...(await planSetup(project)), directory: [] });
    return {};
  },
  undo: async ({ project, recorder: { record } }) => {
    await restoreFile(project.root, record.id, dotenvPath(project.root));
    await restoreFile(project.root, record.id, await excludeFile(project.root));
  },
};

export const images: Step = {
  name: 'images',
  apply: async ({ project }) => {
    if (!variable(project, 'PROD_TAG') && !(await newestRelease(project)))
      await runWholeTask(project, 'release', 'auto');
    const ready = await loadProject(project.root);
    const tag = variable(ready, 'PROD_TAG') ?? (await newestRelease(ready));
    if (!tag) return {};
    if (!(await inspectImage(imageReference(ready, tag)))) await fetchProd(ready, tag);
    if (!(await inspectImage(imageReference(ready, 'latest'))) && !(await pullLatest(ready)))
      await runWholeTask(ready, 'build-push', 'latest', '--no-push');
    return { tag };
  },
  // A release and images stay: they are nobody's old state, and the next run needs them.
  undo: async () => {},
};

async function fetchProd(project: Project, tag: string): Promise<void> {
  await engineInfo();
  const by = registryReference(project, tag) ? 'pull' : 'build';
  await fetchRelease(project, { kind: 'fetch', tag, by }, { active: 'both', prodTag: tag, imageIds: {} }, {});
}

async function pullLatest(project: Project): Promise<boolean> {
  const reference = registryReference(project, 'latest');
  if (!reference) return false;
  const answer = session.dryRun ? undefined : await probe(docker('pull', '--quiet', reference));
  if (!answer) await run(docker('pull', '--quiet', reference));
  if (answer && !answer.ok) log.warn(`cannot pull ${reference}; it is built instead`);
  if (!answer?.ok) return false;
  await tagImage(reference, imageReference(project, 'latest'));
  return true;
}
