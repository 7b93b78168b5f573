// switch-env beside plain `docker compose up -d --wait`, on the same services and images, taken in turns on one
// machine, so that what it does besides slows both. Printed: how long a client finds no answer, and how long
// the whole command takes.
// Usage: npx tsx bench/switch.ts [ROUNDS]

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { startProbing } from '../tasks/lib/switch/probe.ts';
import { bringUpEngine } from '../tests/engine.ts';
import { synapseProject, type TestProject } from '../tests/tasks/project.ts';
import { median } from './figures.ts';

const execute = promisify(execFile);
const rounds = Number(process.argv[2] ?? 5);

/** Milliseconds. */
interface Measured {
  whole: number;
  /** Processor time of the command and of what it started: what load of other programs does not change much. */
  processor: number;
  gaps: Record<string, number>;
}

type Way = (project: TestProject, target: 'dev' | 'prod', tag: string) => Promise<void>;

const bySwitch: Way = async (project, target, tag) => {
  const version = target === 'prod' ? ['--version', tag] : [];
  const outcome = await project.task('switch-env', [target, ...version, '--yes']);
  if (outcome.code !== 0) throw new Error(outcome.stderr);
};

/** What a person types instead: the wanted one up and healthy, then the other one stopped. */
const byCompose: Way = async (project, target, tag) => {
  const file = join(project.root, 'compose/docker-compose.yml');
  const flags = ['--project-name', project.name, '--env-file', join(project.root, '.env'), '--file', file];
  const compose = (...argv: string[]) => execute('docker', ['compose', ...flags, ...argv], { env });
  const env = { ...process.env, SYNAPSE_IMAGE: project.name, SYNAPSE_PROD_TAG: tag };
  const other = target === 'dev' ? 'prod' : 'dev';
  await compose('up', '--detach', '--wait', '--no-deps', `synapse-${target}`);
  await compose('stop', `synapse-${other}`);
};

/** Of children that ended, theirs included: fields 16 and 17 of proc(5)'s stat, in ticks of 10 ms. */
function processorTime(): number {
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[13]) + Number(fields[14])) * 10;
}

async function measure(project: TestProject, work: () => Promise<void>): Promise<Measured> {
  const address = (port: number) => ({ url: `http://127.0.0.1:${port}/health` });
  const spent = processorTime();
  const probing = startProbing({ dev: address(project.ports.dev), prod: address(project.ports.prod) });
  const began = performance.now();
  await work();
  const whole = performance.now() - began;
  await probing.stop();
  return { whole, processor: processorTime() - spent, gaps: probing.gaps() };
}

/** One kind of switch, by both ways in turns, each beginning where the other way ends as well. */
async function compare(
  project: TestProject,
  title: string,
  gap: string,
  before: Parameters<Way>,
  measured: Parameters<Way>,
) {
  const results = { ours: [] as Measured[], plain: [] as Measured[] };
  for (let round = 0; round < rounds; round += 1) {
    for (const [name, way] of [
      ['plain', byCompose],
      ['ours', bySwitch],
    ] as const) {
      await way(...before);
      results[name].push(await measure(project, () => way(...measured)));
    }
  }
  const figures = (list: Measured[]) => ({
    gap: Math.round(median(list.map(({ gaps }) => gaps[gap] ?? 0))),
    whole: Math.round(median(list.map(({ whole }) => whole))),
    processor: Math.round(median(list.map(({ processor }) => processor))),
  });
  const [ours, plain] = [figures(results.ours), figures(results.plain)];
  console.log(`${title}, median of ${results.ours.length}`);
  for (const [what, name] of [
    ['downtime', 'gap'],
    ['whole command', 'whole'],
    ['processor time', 'processor'],
  ] as const)
    console.log(`  ${what.padEnd(16)} switch ${ours[name]} ms, plain compose ${plain[name]} ms`);
}

const cleaners: (() => unknown)[] = [];
const context = { after: (cleaner: () => unknown) => cleaners.push(cleaner) } as unknown as TestContext;
const engine = await bringUpEngine();
try {
  const project = await synapseProject(context);
  const data = join(project.directory, 'data');
  await mkdir(data, { mode: 0o700 });
  await execute('chown', ['1000:1000', data]);
  await project.edit('.env', (text) => `${text}SYNAPSE_CPUS=${Math.min(3, cpus().length)}\n`);
  for (const tag of ['v1.0.0', 'v1.0.1']) {
    await project.commit(`feat: ${tag}`, { note: tag });
    const outcome = await project.task('release', [tag.slice(1), '--yes']);
    if (outcome.code !== 0) throw new Error(outcome.stderr);
  }
  const dev: Parameters<Way> = [project, 'dev', 'v1.0.0'];
  const prod: Parameters<Way> = [project, 'prod', 'v1.0.0'];
  const next: Parameters<Way> = [project, 'prod', 'v1.0.1'];
  await compare(project, 'dev → prod', 'any', dev, prod);
  await compare(project, 'another version of prod on the same port', 'prod', prod, next);
} finally {
  for (const cleaner of cleaners) await cleaner();
  await engine.stop();
}
