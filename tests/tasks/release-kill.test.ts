// The kill table: a release dies at every step, begun and applied, and at random moments, is interrupted, loses its
// engine or its registry. After one re-run there is exactly one release of the expected version. SEED=… repeats
// a run; the soak runs the same with larger counts (SOAK=1).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadProject } from '../../tasks/lib/project.ts';
import { releaseSteps } from '../../tasks/lib/release/perform.ts';
import type { ReleaseData } from '../../tasks/lib/release/plan.ts';
import { chosenSeed, randomNumbers } from '../random.ts';
import { type Accidents, accident, assertReleasedOnce, completes, KINDS } from './accidents.ts';
import { docker } from './processes.ts';
import { configure, type TestProject, tinyProject } from './project.ts';
import { startRegistry } from './registry.ts';

const seed = chosenSeed();
const SOAK = Boolean(process.env.SOAK);
const RANDOM_KILLS = Number(process.env.KILLS ?? (SOAK ? 300 : 20));

/** Each step of the very list that runs: just after it is begun, and just before it is done. */
async function killPoints({ root }: TestProject): Promise<string[][]> {
  const project = await loadProject(root);
  const wanted = { push: true, movesLatest: true, deploy: false, isReleased: false, tag: 'v1.0.0' };
  const steps = releaseSteps(project, wanted as ReleaseData);
  return [...steps.map(({ name }) => [`release/${name}`, `release/${name}/applied`]), ['release/close']];
}

/** After the releases by which `publishing` measures: v1.0.0 and v1.0.1. */
const FIRST_PATCH = 2;

async function publishing(t: Parameters<typeof tinyProject>[0], random: () => number): Promise<Accidents> {
  const project = await tinyProject(t);
  const registry = await startRegistry(t);
  await configure(project, 'image', `registry = "${registry.address}"`);
  const argv = ['patch', '--push', '--yes', '--json'];
  let typicalMs = 0;
  // The first one is slower than all others: it makes what they find.
  for (const note of ['first', 'second']) {
    await project.commit(`fix: ${note}`, { note });
    const began = Date.now();
    const outcome = await project.task('release', argv);
    assert.equal(outcome.code, 0, outcome.stderr);
    typicalMs = Date.now() - began;
  }
  return { project, registry, random, argv, typicalMs };
}

test(`killed at each step and hit at any moment, a release is completed by one re-run (SEED=${seed})`, async (t) => {
  const random = randomNumbers(seed);
  const publishes = await publishing(t, random);
  // Pushing takes longer: without it where it is not what is looked at.
  const keeps = { ...publishes, argv: ['patch', '--yes', '--json'], typicalMs: publishes.typicalMs * 0.7 };
  const { project } = publishes;
  let patch = FIRST_PATCH - 1;
  const begin = async () => {
    patch += 1;
    await project.commit(`fix: repair ${patch}`, { note: String(patch) });
  };
  const isCompleted = async (accidents: Accidents, what: string) => {
    await completes(accidents, `v1.0.${patch}`, what);
    // The engine looks at each image for 15 ms whenever they are listed.
    await docker('image', 'rm', `${project.name}:v1.0.${patch - 1}`);
  };

  await t.test('SIGKILL at each step', async () => {
    for (const variants of await killPoints(project)) {
      const chosen = SOAK ? variants : [variants[Math.floor(random() * variants.length)]!];
      for (const point of chosen) {
        const accidents = SOAK || point.includes('/push-') ? publishes : keeps;
        await begin();
        const env = { RELEASE_FLOW_FAULT: `SIGKILL@${point}` };
        const killed = await project.task('release', accidents.argv, { env });
        assert.equal(killed.code, 137, `${point} is reached\n${killed.stderr}`);
        await isCompleted(accidents, `SIGKILL at ${point}`);
      }
    }
  });

  await t.test('whatever happens to it, and however often', async () => {
    let kills = 0;
    const counts: Record<string, number> = {};
    while (kills < RANDOM_KILLS) {
      await begin();
      const happened: string[] = [];
      const accidents = random() < 1 / 4 ? publishes : keeps;
      for (let more = 1 + Math.floor(random() * 15); more > 0; more -= 1) {
        const kind = KINDS[Math.floor(random() * KINDS.length)]!;
        const { what, outcome } = await accident(kind, accidents);
        happened.push(`${what} → ${outcome.code}`);
        counts[kind] = (counts[kind] ?? 0) + 1;
        if (kind.startsWith('kill') && outcome.code === 137) kills += 1;
        if (outcome.code === 0) break;
      }
      await isCompleted(accidents, happened.join(', '));
    }
    t.diagnostic(`${kills} kills that hit; accidents: ${JSON.stringify(counts)}`);
  });
});

test('of two releases started at once one is made, the other says who holds the lock', async (t) => {
  const project = await tinyProject(t);
  const argv = ['patch', '--yes', '--json'];
  const outcomes = await Promise.all([project.task('release', argv), project.task('release', argv)]);
  assert.deepEqual(outcomes.map(({ code }) => code).sort(), [0, 1]);
  const refused = outcomes.find(({ code }) => code === 1)!;
  assert.equal((refused.json().error as { code: string }).code, 'locked', refused.stderr);
  await assertReleasedOnce(project, 'v1.0.0');
});
