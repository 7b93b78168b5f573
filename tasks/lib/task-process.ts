// Running another task as a process of its own, the way a person would: with its own lock, history and
// signals. For stories that consist of whole tasks; tasks never import each other.
import { fileURLToPath } from 'node:url';
import { attachForAnswer } from './command.ts';
import { TaskError } from './errors.ts';
import { partMark } from './orphans.ts';
import type { Project } from './project.ts';
import { session } from './session.ts';

/** Runs `tasks/<name>.ts` and shows its progress and its result. @throws TaskError with its error if it fails */
export async function runOtherTask(project: Project, name: string, ...argv: string[]): Promise<void> {
  const result = await resultOfOtherTask(project, name, ...argv);
  if (!session.json) process.stderr.write(result);
}

/** The same, but the result is returned and not shown. */
export async function resultOfOtherTask(project: Project, name: string, ...argv: string[]): Promise<string> {
  const start = fileURLToPath(new URL('../start.mjs', import.meta.url));
  const flags = [
    '--yes',
    ...(session.json ? ['--json'] : []),
    ...(session.verbose ? ['--verbose'] : []),
    ...(session.dryRun ? ['--dry-run'] : []),
  ];
  const command = [process.execPath, start, name, ...argv, ...flags] as const;
  const { exitCode, stdout } = await attachForAnswer(command, {
    cwd: project.root,
    env: partMark(project.root),
  });
  if (exitCode !== 0) throw stepFailure(name, exitCode, stdout);
  return stdout;
}

function stepFailure(name: string, exitCode: number, stdout: string): TaskError {
  // It has printed its message and hint already; only a reader of --json has nothing but what is thrown here.
  const { code = 'step-failed', message = 'see above', hint } = parseError(stdout);
  return new TaskError(`${name} failed: ${message}`, {
    code,
    hint: hint ?? 'once repaired, run the same command again: what is done is not done twice',
    exitCode,
  });
}

function parseError(stdout: string): { code?: string; message?: string; hint?: string } {
  try {
    return JSON.parse(stdout).error ?? {};
  } catch {
    return {};
  }
}
