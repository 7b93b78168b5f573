// How long a whole release takes, warm cache, small repository, no checks; beside that of another checkout, turn by
// turn in one run, so that both see the same machine.
// Usage: tsx bench/release.ts [RUNS] [OTHER-CHECKOUT]
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { bringUpEngine } from '../tests/engine.ts';
import { runProcess } from '../tests/tasks/processes.ts';
import { REPOSITORY, type TestProject } from '../tests/tasks/project.ts';
import { median } from './figures.ts';

const [runs = '5', other] = process.argv.slice(2);
const CHECKOUTS = [REPOSITORY, ...(other ? [resolve(other)] : [])];

interface Measured {
  seconds: number;
  phases: Record<string, number>;
}

/** A project as that checkout's own tests make it: its configuration may know other keys. */
async function projectFor(checkout: string, t: TestContext): Promise<TestProject> {
  const { tinyProject } = await import(join(checkout, 'tests/tasks/project.ts'));
  return tinyProject(t);
}

async function measure(project: TestProject, checkout: string): Promise<Measured> {
  await project.commit('fix: a repair', { note: String(Date.now()) });
  const argv = [join(checkout, 'tasks/start.mjs'), 'release', 'patch', '--yes', '--json'];
  const began = Date.now();
  const { code, stdout, stderr } = await runProcess(process.execPath, argv, { cwd: project.root });
  if (code !== 0) throw new Error(stdout + stderr);
  return { seconds: (Date.now() - began) / 1000, phases: JSON.parse(stdout).phases ?? {} };
}

const engine = await bringUpEngine();
test('release', async (t) => {
  const measured = new Map<string, Measured[]>(CHECKOUTS.map((checkout) => [checkout, []]));
  const projects = await Promise.all(CHECKOUTS.map((checkout) => projectFor(checkout, t)));
  for (let run = 0; run <= Number(runs); run += 1) {
    for (const [index, checkout] of CHECKOUTS.entries()) {
      const one = await measure(projects[index]!, checkout);
      // The first one warms up.
      if (run > 0) measured.get(checkout)!.push(one);
    }
  }
  for (const [checkout, found] of measured) {
    console.log(
      `${checkout}: ${median(found.map(({ seconds }) => seconds)).toFixed(2)} s (median of ${runs})`,
    );
    for (const phase of Object.keys(found[0]!.phases)) {
      const seconds = median(found.map(({ phases }) => phases[phase] ?? 0));
      console.log(`  ${phase.padEnd(20)} ${seconds.toFixed(2)} s`);
    }
  }
  await engine.stop();
});
