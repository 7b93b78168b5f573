// What the tests of releases share: a release without questions, and the error that a task reports.
import assert from 'node:assert/strict';
import type { Outcome } from './processes.ts';
import type { TestProject } from './project.ts';

export const release = (project: TestProject, ...argv: string[]) =>
  project.task('release', [...argv, '--yes', '--json']);

/** A release that has to succeed; its result. */
export async function released(project: TestProject, ...argv: string[]): Promise<Record<string, unknown>> {
  const outcome = await release(project, ...argv);
  assert.equal(outcome.code, 0, outcome.stderr);
  return outcome.json();
}

export function errorOf(outcome: Outcome): { code: string; message: string; hint: string } {
  return outcome.json().error as { code: string; message: string; hint: string };
}
