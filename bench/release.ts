// How long a whole release takes beyond git and docker: warm cache, small repository, no checks. Everything is
// measured in one run, beside what an empty script costs on the same machine at the same time.
// Usage: tsx bench/release.ts [RUNS]

import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { bringUpEngine } from '../tests/engine.ts';
import { type TestProject, tinyProject } from '../tests/tasks/project.ts';
import { median } from './figures.ts';
import { busy, emptyScript, traceTask } from './trace.ts';

const RUNS = Number(process.argv[2] ?? 5);
const LIMIT_SECONDS = 0.8;
const LIMIT_GIT = 25;

interface Measured {
  total: number;
  own: number;
  untilFirst: number;
  git: number;
  gitWithChildren: number;
  docker: number;
  phases: Record<string, number>;
}

async function measure(project: TestProject, run: number): Promise<Measured> {
  await project.commit(`fix: repair ${run}`, { note: String(run) });
  const gitTrace = join(project.directory, 'git-trace');
  await rm(gitTrace, { force: true });
  const { began, ended, processes, stdout } = await traceTask(
    project,
    'release',
    ['patch', '--yes', '--json'],
    { GIT_TRACE2_EVENT: gitTrace },
  );
  const started = (await readFile(gitTrace, 'utf8')).match(/"event":"start"/g)?.length ?? 0;
  const first = Math.min(...processes.map(({ from }) => from));
  return {
    total: ended - began,
    own: ended - began - busy(processes, ended),
    untilFirst: first - began,
    git: processes.filter(({ program }) => program === 'git').length,
    gitWithChildren: started,
    docker: processes.filter(({ program }) => program === 'docker').length,
    phases: (JSON.parse(stdout) as Pick<Measured, 'phases'>).phases,
  };
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;

const engine = await bringUpEngine();
test('release', async (t) => {
  const project = await tinyProject(t);
  await measure(project, 0);
  const measured: Measured[] = [];
  const floors: number[] = [];
  for (let run = 1; run <= RUNS; run += 1) {
    floors.push(await emptyScript());
    measured.push(await measure(project, run));
  }
  const of = (key: Exclude<keyof Measured, 'phases'>) => median(measured.map((one) => one[key]));
  const own = of('own');
  console.log(`whole release            ${seconds(of('total'))} (median of ${RUNS})`);
  console.log(`  git and docker run     ${seconds(of('total') - own)}`);
  console.log(
    `  neither runs           ${seconds(own)} (${Math.round((own / of('total')) * 100)} %; limit ${LIMIT_SECONDS} s)`,
  );
  console.log(
    `  until the first one    ${seconds(of('untilFirst'))}, of which an empty script is ${seconds(median(floors))}`,
  );
  for (const phase of Object.keys(measured[0]!.phases)) {
    console.log(
      `  phase ${phase.padEnd(17)} ${median(measured.map(({ phases }) => phases[phase] ?? 0)).toFixed(2)} s`,
    );
  }
  console.log(
    `git processes            ${of('git')} (limit ${LIMIT_GIT}), with those that git starts itself: ${of('gitWithChildren')}`,
  );
  console.log(`docker processes         ${of('docker')}`);
  const isMet = own <= LIMIT_SECONDS * 1000 && of('git') <= LIMIT_GIT;
  console.log(isMet ? 'within the limits' : 'BEYOND THE LIMITS');
  await engine.stop();
});
