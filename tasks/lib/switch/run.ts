// A switch on one engine, by compose: planned and checked, shown, carried out as a list of steps, and resumed by the next
// run after a kill. A failed step rolls back; .env changes last. What a swarm does in the same way is here, too.

import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ActiveEnvironment, environmentsOf } from '../active.ts';
import { type ComposeModel, composeModel } from '../docker/compose.ts';
import { engineEndpoint } from '../docker/engine.ts';
import { inspectContainers } from '../docker/objects.ts';
import { loadDotenv, updateDotenv } from '../dotenv.ts';
import { TaskError } from '../errors.ts';
import { duration } from '../format.ts';
import type { Phases } from '../history.ts';
import type { HttpAddress } from '../http.ts';
import { runningTask } from '../lock.ts';
import { log } from '../log.ts';
import { type Project, variableName } from '../project.ts';
import { session } from '../session.ts';
import {
  describeSteps,
  type InterruptedRun,
  interruptedRun,
  interruptedRuns,
  type Journey,
  resumeSteps,
  runSteps,
  type Step,
} from '../steps.ts';
import { checkTarget, fetchRelease, verifySwitch } from './checks.ts';
import { missingDependencies, startDependency, undoDependency } from './dependencies.ts';
import { describeObservation, missingNeed, observationData, observeAgain, survey } from './observe.ts';
import { type Choice, planSwitch, type SwitchData, switchSchema } from './plan.ts';
import { startProbing } from './probe.ts';
import { removeStep, startSteps, stopStep } from './replace.ts';

export interface SwitchReport {
  phases: Phases;
  /** Milliseconds of downtime: by environment, and as `any` those in which none answered. */
  gaps: Record<string, number>;
}

/** A switch that was planned and checked on whatever runs the services: what the task shows, asks and does. */
export interface PlannedSwitch {
  /** One line each; none if there is nothing to do. */
  steps: string[];
  run: (waitSeconds?: number) => Promise<SwitchReport>;
  /** What runs, in words and as data; after `run`: what runs then. */
  observe: () => Promise<{ text: string; data: Record<string, unknown> }>;
}

/** What differs between compose on one engine and a swarm. */
export interface Runner<Data> extends Pick<Journey<Data>, 'schema' | 'steps' | 'canUndo'> {
  /** Names the journal. */
  journal: string;
  /** Of the command that resumes it, each with a blank before it. */
  flags: string;
}

/** What has to be done, in order; none if everything is as it should be. */
export function switchSteps(
  project: Project,
  data: SwitchData,
  model: () => Promise<ComposeModel>,
): Step<SwitchData>[] {
  const dependencies = data.dependencies.map(
    (dependency): Step<SwitchData> => ({
      name: `depend-${dependency.service}`,
      title: `start ${dependency.service}, which ${dependency.neededBy} depends on`,
      apply: async () => startDependency(project, await model(), dependency),
      undo: ({ containers }) => undoDependency(project, dependency, containers),
    }),
  );
  const starts = data.starts.flatMap((start) => startSteps(project, model, start));
  const stops = data.stops.map((stop) => stopStep(project, stop));
  const replaced = data.starts.filter(({ how }) => how === 'replace');
  return choiceSteps(project, data, [...dependencies, ...starts, ...stops], replaced.map(removeStep));
}

/** The release is fetched before the changes, and chosen after them: the commit point. None if nothing changes. */
export function choiceSteps<Data extends Choice>(
  project: Project,
  { from, to, fetch }: Choice,
  changes: readonly Step<Data>[],
  clearing: readonly Step<Data>[] = [],
): Step<Data>[] {
  const isSame = from.active === to.active && from.prodTag === to.prodTag;
  if (!fetch && changes.length === 0 && isSame) return [];
  const values = {
    [variableName(project, 'ACTIVE_ENV')]: to.active,
    ...(to.prodTag ? { [variableName(project, 'PROD_TAG')]: to.prodTag } : {}),
  };
  const fetching = fetch && {
    name: 'fetch',
    title: `${fetch === 'pull' ? 'pull' : 'build from its git tag'} the image of ${to.prodTag}, which is not on this machine`,
    apply: async (data: Data) => {
      const { id, labels } = await fetchRelease(project, to.prodTag!);
      data.images.prod = { id, labels };
    },
  };
  const remember: Step<Data> = {
    name: 'remember',
    title: `write .env: active environment ${to.active}${to.prodTag ? `, prod runs ${to.prodTag}` : ''}`,
    commits: true,
    apply: () => updateDotenv(project.root, values),
    isDone: async () => {
      const written = await loadDotenv(project.root);
      return Object.entries(values).every(([name, value]) => written[name] === value);
    },
  };
  return [...(fetching ? [fetching] : []), ...changes, remember, ...clearing];
}

/** What ran before and was touched can be started again: its container and what that one needs are there. */
async function canUndo({ starts, stops }: SwitchData): Promise<boolean> {
  const ids = [...starts, ...stops].flatMap(({ old }) => (old?.up ? [old.id] : []));
  const containers = await inspectContainers(ids);
  const missing = await Promise.all(containers.map(missingNeed));
  return containers.length === ids.length && missing.every((one) => one === undefined);
}

/** Each engine has its own journal. */
function taskOf(journal: string): string {
  return session.context ? `${journal}@${session.context}` : journal;
}

function journeyOf<Data extends Choice>(
  { root }: Project,
  { journal, flags, ...runner }: Runner<Data>,
  { to }: Choice,
  gaps: () => Record<string, number> = () => ({}),
): Journey<Data> {
  const context = session.context ? { context: session.context } : {};
  const named = to.prodTag && environmentsOf(to.active).includes('prod') ? ` --version ${to.prodTag}` : '';
  const more = `${named}${flags}${session.context ? ` --context ${session.context}` : ''}`;
  return {
    ...{ ...runner, root, task: taskOf(journal), command: `npm run switch -- ${to.active}${more}` },
    history: ({ from, to }) => ({
      ...{ from: from.active, to: to.active, gaps: gaps(), ...context },
      ...(to.prodTag ? { prod: to.prodTag } : {}),
    }),
  };
}

/** Asks the environments at `addresses` for their health while the steps are carried out. */
export function plannedSwitch<Data extends Choice>(
  project: Project,
  runner: Runner<Data>,
  data: Data,
  addresses: Record<string, HttpAddress>,
  observe: PlannedSwitch['observe'],
): PlannedSwitch {
  const run = async (waitSeconds?: number) => {
    const probing = startProbing(addresses);
    const journey = journeyOf(project, runner, data, probing.gaps);
    const chosen = { ...data, waitSeconds: waitSeconds ?? null };
    const { phases } = await runSteps(journey, chosen).finally(probing.stop);
    return { phases, gaps: probing.gaps() };
  };
  return { steps: describeSteps(runner.steps(data)), run, observe };
}

function composeRunner(project: Project, model?: ComposeModel): Runner<SwitchData> {
  const steps = (data: SwitchData) =>
    switchSteps(project, data, async () => model ?? composeModel(project, data.to.prodTag ?? undefined));
  return { journal: 'switch', flags: '', schema: switchSchema, steps, canUndo };
}

/** @throws TaskError with every problem */
export async function composeSwitch(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
  isVersionChosen = false,
): Promise<PlannedSwitch> {
  const [snapshot, check] = await Promise.all([
    survey(project, prodTag),
    checkTarget(project, active, prodTag),
  ]);
  const target = { ...check.target, keepsDev: isVersionChosen && !project.environments.dev.follow };
  const data = planSwitch(snapshot, target, missingDependencies(project, snapshot, environmentsOf(active)));
  await verifySwitch(project, snapshot, check, data.starts);
  const observe = async () => {
    const observed = await observeAgain(project, snapshot);
    return { text: describeObservation(project, observed), data: observationData(project, observed) };
  };
  return plannedSwitch(project, composeRunner(project, snapshot.model), data, snapshot.addresses, observe);
}

/** Downtime in words, of an environment that was stopped that it was; nothing after a dry run. */
export function logReport({ gaps }: SwitchReport, active: ActiveEnvironment): void {
  const inWords = (name: string, ms: number) => {
    if (active !== 'both' && active !== name) return 'stopped';
    return ms > 0 ? duration(ms / 1000) : 'none';
  };
  const parts = Object.entries(gaps).flatMap(([name, ms]) =>
    name === 'any' ? [] : `${name} ${inWords(name, ms)}`,
  );
  if (parts.length > 0) log.done(`Downtime: ${parts.join(', ')}`);
}

/** The interrupted switch of this engine; undefined if there is none, or if a task is at work. For reading commands. */
export async function interruptedSwitch({ root }: Project): Promise<InterruptedRun | undefined> {
  if (await runningTask(root)) return undefined;
  return (await interruptedRuns(root)).find(({ task }) => task === taskOf('switch'));
}

/**
 * Finishes, or undoes, an interrupted switch. Call it holding the lock. False if there was none; reload the project after
 * a true: .env may have changed. @throws TaskError if neither is possible now
 */
export async function resumeWith<Data extends Choice>(
  project: Project,
  runner: Runner<Data>,
): Promise<boolean> {
  const { root } = project;
  const left = () => interruptedRun({ root, task: taskOf(runner.journal), schema: runner.schema });
  const journal = await left();
  if (!journal) return false;
  try {
    await resumeSteps(journeyOf(project, runner, journal.data));
  } catch (error) {
    // It ended all the same where nothing was left to bring back: a new switch starts from what is there.
    if (!(error instanceof TaskError) || error.code === 'interrupted' || (await left())) throw error;
    log.warn(error.message);
  }
  return true;
}

export function resumeSwitch(project: Project): Promise<boolean> {
  return resumeWith(project, composeRunner(project));
}

/** Where all checkouts of a compose project on this machine find the lock of an engine. */
export async function engineLockFolder({ project }: Project): Promise<string> {
  const engine = createHash('sha256')
    .update(await engineEndpoint())
    .digest('hex')
    .slice(0, 12);
  return join(tmpdir(), `release-flow-${project.name}-${engine}`);
}
