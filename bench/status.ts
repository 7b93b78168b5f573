// How fast status and doctor answer, with both environments of Synapse up. Status: what it takes beyond the docker
// processes that it starts (the connection to the engine, open all the while, not taken off), and how many these are,
// beside an empty script on the same machine at the same time. Doctor: the whole, and each check.
// Usage: npx tsx bench/status.ts [ROUNDS]

import { cpus } from 'node:os';
import type { TestContext } from 'node:test';
import { bringUpEngine } from '../tests/engine.ts';
import { synapseProject, type TestProject } from '../tests/tasks/project.ts';
import { median } from './figures.ts';
import { busy, emptyScript, traceTask } from './trace.ts';

const ROUNDS = Number(process.argv[2] ?? 7);
const AIMS = { calls: 4, ownSeconds: 0.5, doctorSeconds: 3 };

interface Run {
  /** Seconds. */
  total: number;
  own: number;
  calls: string[];
  stdout: string;
}

async function runTask(project: TestProject, name: string): Promise<Run> {
  const { began, ended, processes, stdout } = await traceTask(project, name, ['--json']);
  const docker = processes.filter(({ program }) => program === 'docker');
  const answers = docker.filter(({ argv }) => !argv.includes('dial-stdio'));
  return {
    total: (ended - began) / 1000,
    own: (ended - began - busy(answers, ended)) / 1000,
    calls: docker.map(({ argv }) => argv.join(' ')),
    stdout,
  };
}

const shown = (seconds: number) => `${seconds.toFixed(2)} s`;
const verdict = (reached: boolean) => (reached ? 'reached' : 'MISSED');

const cleanups: (() => Promise<void>)[] = [];
const engine = await bringUpEngine();
try {
  const context = { after: (cleanup: () => Promise<void>) => cleanups.push(cleanup) };
  const project = await synapseProject(context as unknown as TestContext);
  const up = await project.task('up', ['--yes', '--json']);
  if (up.code !== 0) throw new Error(up.stderr);

  const [empty, status, doctor]: [number[], Run[], Run[]] = [[], [], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    empty.push((await emptyScript()) / 1000);
    status.push(await runTask(project, 'status'));
    doctor.push(await runTask(project, 'doctor'));
  }
  const [total, own, node] = [
    median(status.map((run) => run.total)),
    median(status.map((run) => run.own)),
    median(empty),
  ];
  const calls = status[0]!.calls;
  console.log(`${cpus().length} CPUs, ${ROUNDS} rounds, medians\n`);
  console.log(
    `status --json   ${shown(total)}; beyond its docker processes ${shown(own)} (aim ${AIMS.ownSeconds} s: ${verdict(own <= AIMS.ownSeconds)})`,
  );
  console.log(
    `                an empty script takes ${shown(node)}: status takes ${(own / node).toFixed(1)} times that`,
  );
  console.log(
    `                ${calls.length} docker processes (aim ${AIMS.calls}: ${verdict(calls.length <= AIMS.calls)})`,
  );
  for (const call of calls) console.log(`                  docker ${call.slice(0, 90)}`);
  const whole = median(doctor.map((run) => run.total));
  console.log(
    `doctor          ${shown(whole)} (aim ${AIMS.doctorSeconds} s: ${verdict(whole <= AIMS.doctorSeconds)}); each check, waiting for answers that several share included:`,
  );
  const checks = doctor.map(
    ({ stdout }) => (JSON.parse(stdout) as { checks: { id: string; seconds: number }[] }).checks,
  );
  for (const [index, { id }] of checks[0]!.entries()) {
    const seconds = median(checks.map((list) => list[index]!.seconds));
    console.log(`                  ${id.padEnd(16)} ${(seconds * 1000).toFixed(0).padStart(5)} ms`);
  }
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
  await engine.stop();
}
