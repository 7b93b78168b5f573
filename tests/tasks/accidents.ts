// What can happen to a release while it runs, drawn at random from a seed: killed alone or with everything it
// started, interrupted, without its engine from some call on, with a registry that fails. And the proof that
// afterwards one re-run leaves exactly one release. Used by the tests and, with larger counts, by the soak.

import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { kill } from '../../tasks/lib/lock.ts';
import { socketToEngine } from './engine-socket.ts';
import type { Outcome } from './processes.ts';
import type { TestProject } from './project.ts';
import type { Registry } from './registry.ts';

/**
 * The processes that carry the mark of a run: everything that it started on this machine. What serves its pushes, in the
 * remote's folder, stands for another machine: git's lock would stay there when it is killed.
 */
async function startedBy({ root, remote }: TestProject, pid: number): Promise<number[]> {
  const names = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const marked = await Promise.all(
    names.map(async (name) => {
      const environment = await readFile(`/proc/${name}/environ`, 'latin1').catch(() => '');
      if (!environment.includes(`RELEASE_FLOW_RUN=${root}#${pid}\0`)) return [];
      return (await readlink(`/proc/${name}/cwd`).catch(() => '')) === remote ? [] : [Number(name)];
    }),
  );
  return marked.flat();
}

/** Runs a release whose engine is gone after so many calls of `docker`: nothing answers at its socket any more. */
async function withoutEngineAfter(calls: number, { project, argv }: Accidents): Promise<Outcome> {
  const directory = join(project.directory, 'fake-bin');
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory);
  const script = `#!/bin/sh
echo >> ${directory}/calls
[ "$(wc -l < ${directory}/calls)" -gt ${calls} ] && rm -f ${directory}/docker.sock
PATH=$(echo "$PATH" | sed "s#^${directory}:##") exec docker "$@"
`;
  await writeFile(join(directory, 'docker'), script);
  await chmod(join(directory, 'docker'), 0o755);
  const { env, close } = await socketToEngine(join(directory, 'docker.sock'));
  try {
    const PATH = `${directory}:${process.env.PATH}`;
    return await project.task('release', argv, { env: { ...env, PATH } });
  } finally {
    close();
  }
}

export interface Accidents {
  project: TestProject;
  registry?: Registry | undefined;
  random: () => number;
  /** Arguments of every run, e.g. patch --push. */
  argv: readonly string[];
  /** How long a whole run takes, ms: kills are spread over it. */
  typicalMs: number;
}

/** Mostly kills; the number of times is the likelihood. */
export const KINDS = [
  ...Array<'kill'>(9).fill('kill'),
  ...Array<'kill tree'>(6).fill('kill tree'),
  'interrupt',
  'engine',
  'registry',
] as const;
export type Kind = (typeof KINDS)[number];

/** Runs a release and lets one accident happen to it. Returns how it ended. */
export async function accident(
  kind: Kind,
  accidents: Accidents,
): Promise<{ what: string; outcome: Outcome }> {
  const { project, registry, random, argv, typicalMs } = accidents;
  const at = Math.floor(random() * typicalMs);
  if (kind === 'engine' || (kind === 'registry' && !argv.includes('--push'))) {
    const calls = Math.floor(random() * 14);
    return { what: `no engine after ${calls} calls`, outcome: await withoutEngineAfter(calls, accidents) };
  }
  if (kind === 'registry') {
    registry!.fault = (method) => (method === 'GET' || method === 'HEAD' ? undefined : 500);
    const outcome = await project.task('release', argv);
    registry!.fault = () => undefined;
    return { what: 'the registry answers 500', outcome };
  }
  const timers: NodeJS.Timeout[] = [];
  const outcome = await project.task('release', argv, {
    onStart: (pid) => {
      const strike = async () => {
        const children = kind === 'kill tree' ? await startedBy(project, pid) : [];
        kill(pid, kind === 'interrupt' ? 'SIGINT' : 'SIGKILL');
        for (const child of children) kill(child, 'SIGKILL');
      };
      timers.push(setTimeout(() => void strike(), at));
    },
  });
  for (const timer of timers) clearTimeout(timer);
  return { what: `${kind} after ${at} ms`, outcome };
}

const lines = (text: string) => text.split('\n').filter(Boolean);

/** Exactly one release of this version: commit, tag, image, notes entry; clean, and nothing left over. */
export async function assertReleasedOnce(
  project: TestProject,
  tag: string,
  registry?: Registry,
): Promise<void> {
  const [commit, tags, subjects, notes, message, { status, images, candidates }] = await Promise.all([
    project.git('rev-parse', `${tag}^{commit}`, 'main'),
    project.git('tag', '--list'),
    project.git('log', '--format=%s', 'main'),
    project.read('release-notes.md'),
    project.git('cat-file', 'tag', tag),
    project.snapshot(),
  ]);
  const [tagged, main] = commit.split('\n');
  assert.equal(tagged, main, `${tag} is the branch's newest commit`);
  assert.equal(lines(subjects).filter((line) => line === `chore(release): ${tag}`).length, 1, 'one commit');
  assert.equal(
    lines(subjects).filter((line) => line.startsWith('chore(release)')).length,
    lines(tags).length,
  );
  assert.equal(notes.split(`## [${tag}]`).length - 1, 1, 'one notes entry');
  assert.equal(status, '', 'a clean tree');
  const digest = /^Image-Digest: (.+)$/m.exec(message)?.[1];
  const named = new Map(
    lines(images!).map((line) => line.slice(`${project.name}:`.length).split(' ') as [string, string]),
  );
  assert.equal(named.get(tag), digest, 'the image is the recorded one');
  assert.equal(named.get('latest'), digest, 'latest follows');
  assert.deepEqual(
    [...named.keys()].filter((name) => name.startsWith('candidate')),
    [],
    'no candidate image',
  );
  assert.equal(candidates, '', 'no candidate container');
  const state = await readdir(join(project.root, '.synapse'), { recursive: true });
  assert.deepEqual(
    state.filter((name) => /work-|index-|journal\/|owner|\.partial/.test(name)),
    [],
    'no leftovers',
  );
  if (!registry) return;
  assert.equal((await registry.manifest(project.name, tag))?.digest, digest, 'the registry has it');
  const remote = await project.git('ls-remote', 'origin');
  assert.match(remote, new RegExp(`^${main}\trefs/heads/main$`, 'm'), 'the remote has the branch');
  assert.match(remote, new RegExp(`^${main}\trefs/tags/${tag.replaceAll('.', '\\.')}\\^\\{\\}$`, 'm'));
}

/** One re-run completes the very version; a run that had just got everything done leaves nothing to do. */
export async function completes(accidents: Accidents, tag: string, what: string): Promise<void> {
  const { project, registry, argv } = accidents;
  const again = await project.task('release', argv);
  try {
    const code = again.code === 0 ? '' : (again.json().error as { code: string }).code;
    if (code === '') assert.equal(again.json().tag, tag, 'no number is skipped, none is used twice');
    else assert.equal(code, 'nothing-to-release', again.stderr);
    await assertReleasedOnce(project, tag, argv.includes('--push') ? registry : undefined);
  } catch (error) {
    (error as Error).message += `\nafter: ${what}\nthe re-run said:\n${again.stderr}`;
    throw error;
  }
}
