// A full disk, and an engine that is really stopped, in the middle of a release: what was there stays, and one
// re-run completes the release once there is room, or an engine, again. SEED=… repeats a run.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { cp, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { read } from '../../tasks/lib/command.ts';
import { chosenSeed, randomNumbers } from '../random.ts';
import { assertReleasedOnce } from './accidents.ts';
import { runProcess } from './processes.ts';
import { configure, START, type TestProject, tinyProject } from './project.ts';
import { secondEngine } from './second-engine.ts';
import { fakeDocker } from './switch-support.ts';

const seed = chosenSeed();
const SOAK = Boolean(process.env.SOAK);
const ARGV = ['patch', '--yes', '--json'];

/** Puts the clone onto a file system of its own that is soon full. */
async function onSmallDisk(t: TestContext, project: TestProject, megabytes: number): Promise<string> {
  const disk = await mkdtemp(join(tmpdir(), 'release-flow-disk-'));
  await read(['mount', '-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', disk]);
  t.after(async () => {
    await read(['umount', '--lazy', disk]);
    await rm(disk, { recursive: true, force: true });
  });
  await cp(project.root, join(disk, 'clone'), { recursive: true });
  await rm(project.root, { recursive: true });
  await symlink(join(disk, 'clone'), project.root);
  return disk;
}

test(`a disk that fills up during a release loses nothing (SEED=${seed})`, async (t) => {
  const random = randomNumbers(seed);
  const project = await tinyProject(t);
  const disk = await onSmallDisk(t, project, 96);
  const fill = `test -e ${disk}/keep || exit 0; avail=$(df --output=avail -k ${disk} | tail -1); keep=$(cat ${disk}/keep); test $avail -le $keep || head -c $((avail - keep))k /dev/zero > ${disk}/filler`;
  await configure(project, 'release', `checks = [["sh", "-c", ${JSON.stringify(fill)}]]`);
  assert.equal((await project.task('release', ARGV)).code, 0);
  // From nothing at all to what nearly suffices: the archive of this image takes about one MiB.
  const kilobytes = SOAK
    ? [0, 500, ...Array.from({ length: 30 }, () => Math.floor(random() * 3000))]
    : [random() < 1 / 2 ? 0 : 500];
  for (const [index, keep] of kilobytes.entries()) {
    const tag = `v1.0.${index + 1}`;
    await project.commit(`fix: ${keep}`, { note: String(keep) });
    await writeFile(join(disk, 'keep'), String(keep));
    const before = await project.snapshot();
    const failed = await project.task('release', ARGV);
    if (failed.code !== 0 && !(await project.git('tag', '--list', tag)))
      assert.deepEqual(await project.snapshot(), before, `${keep} KiB: ${failed.stderr}`);
    await rm(join(disk, 'keep'));
    await rm(join(disk, 'filler'), { force: true });
    const again = await project.task('release', ARGV);
    if (again.code !== 0) assert.match(again.stderr, /Nothing to release/);
    await assertReleasedOnce(project, tag);
  }
  await project.commit('fix: no room from the beginning', { note: 'none' });
  await read(['sh', '-c', `head -c 60M /dev/zero > ${disk}/filler`]);
  const refused = await project.task('release', ARGV);
  assert.equal((refused.json().error as { code: string }).code, 'disk-full', refused.stderr);
});

test(`an engine that is killed during a release loses nothing (SEED=${seed})`, async (t) => {
  const random = randomNumbers(seed);
  const engine = await secondEngine(t);
  process.env.DOCKER_HOST = engine.host;
  t.after(() => delete process.env.DOCKER_HOST);
  const project = await tinyProject(t);
  const release = (onStart?: () => void) => {
    const task = [process.execPath, START, 'release', ...ARGV];
    const options = { cwd: project.root, ...(onStart ? { onStart } : {}) };
    return runProcess('nsenter', [`--net=/run/netns/${engine.namespace}`, ...task], options);
  };
  const began = Date.now();
  const first = await release();
  assert.equal(first.code, 0, first.stderr);
  const typicalMs = Date.now() - began;
  for (let patch = 1; patch <= (SOAK ? 20 : 1); patch += 1) {
    await project.commit(`fix: ${patch}`, { note: String(patch) });
    const at = Math.floor(typicalMs * (0.3 + 0.7 * random()));
    const pid = await engine.pid();
    const timers: NodeJS.Timeout[] = [];
    const failed = await release(() => timers.push(setTimeout(() => process.kill(pid, 'SIGKILL'), at)));
    for (const timer of timers) clearTimeout(timer);
    // A run that was quicker than that ends well; the engine goes down all the same.
    t.diagnostic(`engine killed after ${at} ms: exit ${failed.code}`);
    await engine.restart();
    const again = await release();
    if (again.code !== 0) assert.match(again.stderr, /Nothing to release/);
    await assertReleasedOnce(project, `v1.0.${patch}`);
  }
});

test('an engine that misses the image it has just loaded is asked again', async (t) => {
  const project = await tinyProject(t);
  const missing = `case "$*" in *-candidate-*" up "*)
  if [ ! -e "$here/missed" ]; then
    : > "$here/missed"
    echo "Error response from daemon: No such image: candidate" >&2
    exit 1
  fi
esac`;
  const { PATH, folder } = await fakeDocker(t, missing);
  const outcome = await project.task('release', ['patch', '--yes', '--json'], { env: { PATH } });
  assert.equal(outcome.code, 0, outcome.stderr);
  assert.ok(existsSync(`${folder}/missed`));
});
