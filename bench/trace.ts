// A task started as the npm scripts start it, with a note of every process that it starts: what it takes beside git
// and docker.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runProcess } from '../tests/tasks/processes.ts';
import { START, type TestProject } from '../tests/tasks/project.ts';

const PRELOADED = fileURLToPath(new URL('trace-processes.mjs', import.meta.url));

export interface Traced {
  program: string;
  argv: string[];
  /** Milliseconds since the epoch; null: it ran when the task ended. */
  from: number;
  to: number | null;
}

export interface TracedRun {
  /** Milliseconds since the epoch. */
  began: number;
  ended: number;
  processes: Traced[];
  stdout: string;
}

/** @throws Error with its output where the task fails */
export async function traceTask(
  project: TestProject,
  name: string,
  argv: readonly string[],
  env: Record<string, string> = {},
): Promise<TracedRun> {
  const trace = join(project.directory, 'trace.json');
  const began = Date.now();
  const { code, stdout, stderr } = await runProcess(
    process.execPath,
    ['--import', `file://${PRELOADED}`, START, name, ...argv],
    { cwd: project.root, env: { ...env, BENCH_TRACE: trace } },
  );
  const ended = Date.now();
  if (code !== 0) throw new Error(stdout + stderr);
  return { began, ended, stdout, processes: JSON.parse(await readFile(trace, 'utf8')) };
}

/** Milliseconds during which at least one of the processes ran. */
export function busy(processes: readonly Traced[], ended: number): number {
  let covered = 0;
  let until = 0;
  for (const { from, to } of [...processes].sort((a, b) => a.from - b.from)) {
    const stop = to ?? ended;
    covered += Math.max(0, stop - Math.max(from, until));
    until = Math.max(until, stop);
  }
  return covered;
}

/** Milliseconds that node takes for nothing: the floor of every task. */
export async function emptyScript(): Promise<number> {
  const began = Date.now();
  await runProcess(process.execPath, ['-e', '0']);
  return Date.now() - began;
}
