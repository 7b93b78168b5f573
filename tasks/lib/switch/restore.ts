// Bringing back what ran before a switch, from its record. The same code serves a switch that failed and the
// next run after one that was killed, so it looks at what is there and trusts no order of steps.
import { type Container, projectContainers } from '../docker/containers.ts';
import { askHealth, type HealthAddress } from '../docker/health.ts';
import { errorSummary, TaskError } from '../errors.ts';
import { pause } from '../interrupt.ts';
import { log } from '../log.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { containersOfEnvironment } from './environments.ts';
import type { ContainerBefore, SwitchRecord } from './record.ts';
import {
  removeContainer,
  renameContainer,
  setRestartPolicy,
  startContainer,
  stopContainer,
} from './successor.ts';

/** A container that failed gets this long to stop; its data survives a kill, the outage should not be long. */
const STOP_SECONDS = 3;
const ANSWER_WITHIN_MS = 20_000;

/**
 * Puts every touched environment back to what the record says, and waits until what answered before answers
 * again. Runs to its end; call it inside `uninterrupted`.
 * @throws TaskError saying what could not be brought back and what to do
 */
export async function restore(
  project: Project,
  record: SwitchRecord,
  addresses: Record<EnvironmentName, HealthAddress>,
): Promise<void> {
  const failures: string[] = [];
  for (const name of [...record.touched].reverse()) {
    try {
      await restoreEnvironment(project, record, name);
      if (record.before[name]?.healthy) await waitForAnswer(name, addresses[name]);
    } catch (error) {
      failures.push(`${name}: ${errorSummary(error)}`);
    }
  }
  verifyRestored(
    failures,
    'repair the cause, then run: npm run switch -- status   (it brings back what ran before)',
  );
}

/** @throws TaskError saying what could not be brought back, where something could not */
export function verifyRestored(failures: readonly string[], hint: string): void {
  if (failures.length === 0) return;
  const message = `Could not bring back what ran before: ${failures.join('; ')}`;
  throw new TaskError(message, { code: 'not-restored', hint });
}

/** Brings back what ran before the failure `cause`. @throws TaskError with both where that fails too */
export async function afterFailure(cause: unknown, bringBack: () => Promise<void>): Promise<void> {
  try {
    await bringBack();
  } catch (error) {
    if (!(error instanceof TaskError)) throw error;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new TaskError(`${message}\n${error.message}`, { code: error.code, hint: error.hint, cause });
  }
}

async function restoreEnvironment(project: Project, record: SwitchRecord, name: EnvironmentName) {
  const was = record.before[name];
  const all = await projectContainers(project);
  const present = containersOfEnvironment(project, all, name);
  for (const made of present.filter(({ id }) => !record.containers.includes(id))) {
    if (made.state === 'running') await stopContainer(made.id, STOP_SECONDS);
    await removeContainer(made.id);
  }
  const container = present.find(({ id }) => id === was?.id);
  if (!was) return;
  if (!container) throw new TaskError(`its container ${was.name} (${was.id.slice(0, 12)}) is gone`);
  await putBack(name, was, container, record.stopping.includes(name));
}

async function putBack(name: EnvironmentName, was: ContainerBefore, now: Container, mayBeStopping: boolean) {
  if (now.name !== was.name) await renameContainer(was.id, was.name);
  if (now.restartPolicy !== was.restartPolicy) await setRestartPolicy(was.id, was.restartPolicy);
  const runs = now.state === 'running';
  if (!was.running) {
    if (runs) await stopContainer(was.id);
    return;
  }
  if (runs && !mayBeStopping) return;
  log.step(`bring ${name} back: ${was.name}`);
  // A stop that was asked for goes on in the engine after its asker died: wait for it, or it hits the start.
  if (runs) await stopContainer(was.id);
  await startContainer(was.id);
}

/** Waits until an environment that answered before answers again. @throws TaskError if it does not */
export async function waitForAnswer(name: EnvironmentName, address: HealthAddress): Promise<void> {
  const began = Date.now();
  for (;;) {
    const { status, error } = await askHealth(address);
    if (status === 200) {
      log.done(`${name} answers as before`);
      return;
    }
    if (Date.now() - began > ANSWER_WITHIN_MS) {
      throw new TaskError(`its container runs, but ${address.url} gives ${error ?? status}`);
    }
    await pause(100);
  }
}
