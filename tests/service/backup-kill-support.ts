// What the tests share that kill the backup program: when, how often, and what must be true afterwards.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { names, type Places, startProgram, verify } from './backup-support.ts';

export const ROUNDS = process.env.SOAK ? 60 : 5;
export const isArchive = (name: string) => /^synapse-.*\.tar\.zst$/.test(name);

/** Kills a command `ms` after it started. */
export async function killAfter(command: string, options: object, ms: number) {
  const running = startProgram(command, options);
  const timer = setTimeout(() => running.child.kill('SIGKILL'), ms);
  const outcome = await running.ended;
  clearTimeout(timer);
  return outcome;
}

/** Kills a command as soon as the archives' directory has no more than so many entries. */
export async function killOnce(left: number, places: Places, command: string, options: object) {
  const running = startProgram(command, options);
  let over = false;
  const outcome = running.ended.finally(() => {
    over = true;
  });
  while (!over && names(places).length > left) await new Promise((resolve) => setImmediate(resolve));
  running.child.kill('SIGKILL');
  return outcome;
}

/** Every archive has a record that is right about it, and those of before are there. */
export async function verifyState(places: Places, before: readonly string[], context: string): Promise<void> {
  const archives = names(places).filter(isArchive);
  for (const archive of before) assert.ok(archives.includes(archive), `${context}: ${archive} is gone`);
  for (const archive of archives) assert.ok(existsSync(join(places.backups, `${archive}.json`)), context);
  for (const verdict of await verify(places)) assert.ok(verdict.ok, `${context}: ${verdict.problems}`);
}
