// Carrying out a switch plan. What ran before is brought back when a step fails; .env changes last.

import { probe } from '../command.ts';
import { askHealth } from '../docker/health.ts';
import { type Container, projectContainers } from '../docker/objects.ts';
import { withReach } from '../docker/remote.ts';
import { updateDotenv } from '../dotenv.ts';
import { errorSummary, TaskError } from '../errors.ts';
import { logPhases, readHistory, timed, withHistory } from '../history.ts';
import type { HttpAddress } from '../http.ts';
import { withLock } from '../lock.ts';
import { log } from '../log.ts';
import type { JournalEntry } from '../old-journal.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project, portOf, variableName } from '../project.ts';
import { pause, session, uninterrupted } from '../session.ts';
import { slowStarts, verifySwitch } from './checks.ts';
import {
  type ActiveEnvironment,
  containersOfEnvironment,
  describeObservation,
  type Observation,
  observationData,
  type Scene,
  survey,
  surveyAgain,
} from './observe.ts';
import { describeStep, planSwitch } from './plan.ts';
import { whileProbing } from './probe.ts';
import {
  COMMIT,
  type ContainerBefore,
  openSwitchJournal,
  type PlannedSwitch,
  recordOf,
  type Switching,
  type SwitchJournal,
  type SwitchOptions,
  type SwitchRecord,
  type SwitchReport,
  unfinishedSwitch,
} from './record.ts';
import {
  removeContainer,
  renameContainer,
  setRestartPolicy,
  startContainer,
  startStep,
  stopContainer,
  stopStep,
} from './replace.ts';
import { checkTarget, fetchRelease } from './target.ts';

/**
 * Runs the steps, with one line in the history, and tells what runs then.
 * @throws TaskError after bringing back what ran before; .env is then as it was
 */
export async function runSwitch(
  project: Project,
  options: SwitchOptions,
): Promise<{ report: SwitchReport; observed: Observation }> {
  const { scene, target, steps } = options;
  const record = recordOf(scene, steps, target);
  const journal = openSwitchJournal(project.root);
  const report: SwitchReport = { phases: {}, gaps: {} };
  const switching: Switching = { ...options, ...report, project, journal, record };
  await withHistory(project.root, 'switch', historyDetails(record, report), () =>
    whileProbing(session.dryRun ? {} : concerned(scene, record), report.gaps, () => carryOut(switching)),
  );
  const [observed] = await Promise.all([
    surveyAgain(project, scene, target).catch((error) => {
      throw unseen(error, record);
    }),
    uninterrupted(() => tidy(journal, record)),
  ]);
  return { report, observed };
}

/** The engine went away just after the commit: what failed is not the switch. */
function unseen(error: unknown, { to }: SwitchRecord): unknown {
  if (!(error instanceof TaskError)) return error;
  const message = `The switch to ${to.active} is done, but what runs now cannot be seen: ${error.message}`;
  return new TaskError(message, { code: error.code, hint: error.hint, cause: error });
}

/** Those whom a client may find: what runs, and what the plan touches. Each question costs the start some time. */
function concerned({ observed, addresses }: Scene, { touched }: SwitchRecord) {
  const names = ENVIRONMENTS.filter(
    (name) => touched.includes(name) || observed.environments[name].health?.status,
  );
  return Object.fromEntries(names.map((name) => [name, addresses[name]]));
}

function historyDetails({ from, to }: SwitchRecord, report: SwitchReport) {
  const { context } = session;
  return {
    from: from.active,
    to: to.active,
    ...report,
    ...(to.prodTag ? { prod: to.prodTag } : {}),
    ...(context ? { context } : {}),
  };
}

async function carryOut(switching: Switching): Promise<void> {
  const { project, journal, record } = switching;
  await journal.record('begin', record);
  try {
    await takeSteps(switching);
    await uninterrupted(() => commit(project, journal, record));
  } catch (error) {
    await uninterrupted(() => afterFailure(error, () => undo(switching)));
    throw error;
  }
}

async function takeSteps(switching: Switching): Promise<void> {
  for (const step of switching.steps) {
    log.step(describeStep(step));
    if (step.kind === 'fetch')
      await timed(switching.phases, 'fetch', () =>
        fetchRelease(switching.project, step, switching.target, switching.images),
      );
    if (step.kind === 'start') await startStep(switching, step);
    if (step.kind === 'stop') await stopStep(switching, step.environment);
  }
}

/** @throws TaskError if what ran before cannot be brought back; the journal stays for the next run then */
async function undo({ project, journal, record, scene }: Switching): Promise<void> {
  await journal.record('undo', record).catch(() => {});
  await restore(project, record, scene.addresses);
  await journal.close();
}

/** From here on the switch has happened: the next run finishes it if this one dies. */
async function commit(project: Project, journal: SwitchJournal, record: SwitchRecord): Promise<void> {
  await journal.record(COMMIT, record);
  const { active, prodTag } = record.to;
  await updateDotenv(project.root, {
    [variableName(project, 'ACTIVE_ENV')]: active,
    ...(prodTag ? { [variableName(project, 'PROD_TAG')]: prodTag } : {}),
  });
}

/** Removes what was kept in case of a failure, then the journal; what stays is for the next run to remove. */
async function tidy(journal: SwitchJournal, record: SwitchRecord): Promise<void> {
  try {
    for (const id of record.replaced) await removeContainer(id);
    await journal.close();
  } catch (error) {
    log.warn(`could not remove the replaced container, the next run will: ${errorSummary(error)}`);
  }
}

// Bringing back what ran before a switch, from its record. The same code serves a switch that failed and the
// next run after one that was killed, so it looks at what is there and trusts no order of steps.

/** A container that failed gets this long to stop; its data survives a kill, the outage should not be long. */
const STOP_SECONDS = 3;
const ANSWER_WITHIN_MS = 20_000;

/**
 * Puts every touched environment back to what the record says, and waits until what answered before answers
 * again. Runs to its end; call it inside `uninterrupted`.
 * @throws TaskError saying what could not be brought back and what to do
 */
async function restore(
  project: Project,
  record: SwitchRecord,
  addresses: Record<EnvironmentName, HttpAddress>,
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
export async function waitForAnswer(name: EnvironmentName, address: HttpAddress): Promise<void> {
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

// The next run after a switch that was killed: brings back what ran before it, or finishes it if it had come
// as far as its commit.

const SETTLE_MS = 15_000;

/** Under the project's lock; says what it did. @throws TaskError if it cannot */
async function repair(project: Project, { step, data: record }: JournalEntry<SwitchRecord>): Promise<void> {
  const what = `the switch ${record.from.active} → ${record.to.active} of ${record.startedAt}`;
  if (session.dryRun) {
    log.withhold(`${step === COMMIT ? 'finish' : 'undo'} ${what}, which ended at the step ${step}`);
    return;
  }
  await settle(project);
  if (step === COMMIT) {
    log.warn(`${what} was interrupted at its end: finishing it`);
    await uninterrupted(() => finish(project, record));
  } else {
    log.warn(`${what} was interrupted (at ${step}): bringing back what ran before`);
    await uninterrupted(() => undoInterrupted(project, record));
  }
}

/** A client that outlived its killed task may still be making a container: waits for it to end. */
async function settle(project: Project): Promise<void> {
  const mark = `--project-name ${project.project.name} --file -`;
  const deadline = Date.now() + SETTLE_MS;
  while (Date.now() < deadline) {
    const processes = await probe(['ps', '-A', '-o', 'args=']);
    if (!processes.stdout.split('\n').some((line) => line.includes(mark))) return;
    await pause(100);
  }
}

async function wasWritten(project: Project, record: SwitchRecord): Promise<boolean> {
  const last = (await readHistory(project.root)).at(-1);
  return last?.task === 'switch' && last.at >= record.startedAt;
}

async function finish(project: Project, record: SwitchRecord): Promise<void> {
  const journal = openSwitchJournal(project.root);
  if (await wasWritten(project, record)) await commit(project, journal, record);
  else {
    await withHistory(project.root, 'switch', historyDetails(record, { phases: {}, gaps: {} }), () =>
      commit(project, journal, record),
    );
  }
  await tidy(journal, record);
}

async function undoInterrupted(project: Project, record: SwitchRecord): Promise<void> {
  await withReach(async (reach) => {
    const address = async (name: 'dev' | 'prod') => {
      const found = await reach(portOf(project, name));
      return { ...found, url: found.url + project.environments[name].health };
    };
    await restore(project, record, { dev: await address('dev'), prod: await address('prod') });
  });
  await openSwitchJournal(project.root).close();
}

// A switch that was killed: looked for by every run, and repaired by code that is loaded only then, since it is rare.

/**
 * Repairs an unfinished switch, under the project's lock; says what it did. False if there was none.
 * Reload the project after a true: .env may have changed. @throws TaskError if it cannot
 */
export async function repairSwitch(project: Project): Promise<boolean> {
  const entry = await unfinishedSwitch(project.root);
  if (!entry) return false;
  await repair(project, entry);
  return true;
}

/** The same for a task that does not hold the lock; leaves a switch alone that is under way. */
export async function repairIfUnfinished(project: Project): Promise<boolean> {
  if (!(await unfinishedSwitch(project.root))) return false;
  try {
    return await withLock(project.root, 'switch-env', () => repairSwitch(project));
  } catch (error) {
    if ((error as TaskError).code !== 'locked') throw error;
    log.info('A switch is under way.');
    return false;
  }
}

// A switch on one engine, by compose: surveyed, planned and checked, for the task to show and to carry out.

/** @throws TaskError with everything that stands in the way */
export async function composeSwitch(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<PlannedSwitch> {
  const [scene, check] = await Promise.all([survey(project, prodTag), checkTarget(project, active, prodTag)]);
  const { target, images } = check;
  const steps = planSwitch(scene.observed, target);
  await verifySwitch(project, scene, check, steps);
  let { observed } = scene;
  return {
    steps: steps.map(describeStep),
    warnings: await slowStarts(project, scene.services, steps),
    run: async (waitSeconds) => {
      const done = await runSwitch(project, { scene, target, images, steps, waitSeconds });
      ({ observed } = done);
      return done.report;
    },
    observe: async () => ({
      text: describeObservation(project, observed),
      data: observationData(project, observed),
    }),
  };
}

// What a switch took, in words: the phases, and how long nobody answered.

/** `✓ create prod 0.3 s, …` and `✓ nobody answered on prod for 412 ms`; nothing after a dry run. */
export function logReport({ phases, gaps }: SwitchReport): void {
  if (session.dryRun) return;
  logPhases(phases);
  const { any, ...ports } = gaps;
  const parts = Object.entries(ports).map(([name, ms]) => `${name} ${ms} ms`);
  if (parts.length > 0)
    log.done(`without an answer: ${parts.join(', ')}; no environment answered: ${any} ms`);
}
