// Carrying out a switch plan. What ran before is brought back when a step fails; .env changes last.
import { updateDotenv } from '../dotenv.ts';
import { errorSummary, TaskError } from '../errors.ts';
import { uninterrupted } from '../interrupt.ts';
import { withHistory } from '../journal.ts';
import { log } from '../log.ts';
import { timed } from '../phases.ts';
import { ENVIRONMENTS, type Project, variableName } from '../project.ts';
import { session } from '../session.ts';
import { startStep, stopStep } from './environment-steps.ts';
import { type Observation, type Scene, surveyAgain } from './environments.ts';
import { describeStep } from './plan.ts';
import { whileProbing } from './prober.ts';
import { COMMIT, openSwitchJournal, recordOf, type SwitchJournal, type SwitchRecord } from './record.ts';
import { afterFailure, restore } from './restore.ts';
import { removeContainer } from './successor.ts';
import type { Switching, SwitchOptions, SwitchReport } from './switching.ts';
import { fetchRelease } from './target.ts';

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

export function historyDetails({ from, to }: SwitchRecord, report: SwitchReport) {
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
export async function commit(project: Project, journal: SwitchJournal, record: SwitchRecord): Promise<void> {
  await journal.record(COMMIT, record);
  const { active, prodTag } = record.to;
  await updateDotenv(project.root, {
    [variableName(project, 'ACTIVE_ENV')]: active,
    ...(prodTag ? { [variableName(project, 'PROD_TAG')]: prodTag } : {}),
  });
}

/** Removes what was kept in case of a failure, then the journal; what stays is for the next run to remove. */
export async function tidy(journal: SwitchJournal, record: SwitchRecord): Promise<void> {
  try {
    for (const id of record.replaced) await removeContainer(id);
    await journal.close();
  } catch (error) {
    log.warn(`could not remove the replaced container, the next run will: ${errorSummary(error)}`);
  }
}
