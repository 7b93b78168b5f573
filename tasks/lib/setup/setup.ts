// What this machine needs before anything can be built or run: engine, base image, data directory, .env.
// Observed first, planned as a whole, so that one question covers everything and a second run finds nothing.

import { stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { run } from '../command.ts';
import { updateDotenv, type Variables } from '../dotenv.ts';
import { allOrThrow } from '../errors.ts';
import { seconds } from '../format.ts';
import { log } from '../log.ts';
import { dataDirectory, type Project, variable, variableName } from '../project.ts';
import { session } from '../session.ts';
import {
  type BaseImage,
  describeBaseImage,
  ensureBaseImage,
  findBaseImage,
  standInFor,
} from './base-image.ts';
import { startDaemon, startService, stopDaemon, stopService } from './daemon.ts';
import {
  applyDirectoryStep,
  chooseOwner,
  type DirectoryStep,
  describeDirectoryStep,
  observeDirectory,
  planDirectory,
  verifyDirectory,
} from './data-directory.ts';
import {
  describeEngineStep,
  type EngineObserved,
  type EngineStep,
  observeEngine,
  planEngine,
} from './detect.ts';
import { configureEngine, installEngine, unpackEngine } from './install.ts';

/** CPUs of one container by design; fewer where the machine has fewer, because the engine refuses more. */
const CONTAINER_CPUS = 3;
const PRIVATE_FILE = 0o600;

/** Names without their prefix; undefined removes a setting. */
type Settings = Record<string, string | undefined>;

interface SetupPlan {
  engine: { observed: EngineObserved; steps: EngineStep[] };
  /** Base image to get, and its name where no registry answers; undefined if it is there. */
  baseImage: { wanted: string; standIn: string | undefined } | undefined;
  directory: DirectoryStep[];
  settings: Settings;
  /** .env is readable by others. */
  restrictDotenv: boolean;
}

/** The settings that .env lacks, or that this machine cannot honour. Pure. */
export function planSettings(
  current: Variables,
  machine: { cpus: number; uid: number; gid: number; dataDirectory: string },
): Record<string, string> {
  const wanted = { DATA_DIR: machine.dataDirectory, UID: String(machine.uid), GID: String(machine.gid) };
  const missing = Object.entries(wanted).filter(([name]) => !current[name]);
  const cpus = Number(current.CPUS ?? CONTAINER_CPUS);
  return { ...Object.fromEntries(missing), ...(cpus > machine.cpus ? { CPUS: String(machine.cpus) } : {}) };
}

function ourSettings(project: Project): Variables {
  const names = ['DATA_DIR', 'UID', 'GID', 'CPUS', 'BASE_IMAGE'];
  return Object.fromEntries(
    names.map((name) => [name, variable(project, name) ?? '']).filter(([, value]) => value),
  );
}

/** What to get, and what .env has to remember of what is there. */
async function planBaseImage(project: Project, engineRuns: boolean) {
  const official = project.image.base_image;
  if (!official) return { get: undefined, settings: {} };
  const standIn = standInFor(project.project.name, official);
  const chosen = variable(project, 'BASE_IMAGE') ?? official;
  const candidates = [chosen, official, ...(standIn ? [standIn] : [])];
  const present = engineRuns ? await findBaseImage(candidates) : undefined;
  if (present) return { get: undefined, settings: present === chosen ? {} : rememberImage(project, present) };
  // The stand-in is ours to make again; another name in .env is the user's own choice.
  return { get: { wanted: chosen === standIn ? official : chosen, standIn }, settings: {} };
}

function rememberImage(project: Project, reference: string): Settings {
  return { BASE_IMAGE: reference === project.image.base_image ? undefined : reference };
}

/** Looks at everything; changes nothing. @throws TaskError where a step could not be carried out */
export async function planSetup(project: Project): Promise<SetupPlan> {
  const observed = await observeEngine();
  const steps = planEngine(observed);
  const self = { uid: process.getuid?.() ?? 1000, gid: process.getgid?.() ?? 1000 };
  const current = ourSettings(project);
  const path = dataDirectory(project);
  const state = await observeDirectory(path);
  const configured = {
    ...(current.UID ? { uid: Number(current.UID) } : {}),
    ...(current.GID ? { gid: Number(current.GID) } : {}),
  };
  const owner = chooseOwner(configured, state, self);
  const directory = planDirectory(path, state, owner, self);
  await verifyDirectory(directory, self, variableName(project, 'DATA_DIR'));
  const baseImage = await planBaseImage(project, observed.server.state === 'ready');
  const machine = { ...owner, cpus: availableParallelism(), dataDirectory: path };
  const dotenv = await stat(join(project.root, '.env')).catch(() => undefined);
  return {
    engine: { observed, steps },
    baseImage: baseImage.get,
    directory,
    settings: { ...planSettings(current, machine), ...baseImage.settings },
    restrictDotenv: dotenv !== undefined && (dotenv.mode & 0o777) !== PRIVATE_FILE,
  };
}

/** The plan as a person reads it, one line a step; empty if nothing is to be done. */
export function describeSetup(project: Project, plan: SetupPlan): string[] {
  const settings = Object.entries(plan.settings).map(
    ([name, value]) => `${variableName(project, name)}=${value ?? ''}`,
  );
  return [
    ...plan.engine.steps.map(describeEngineStep),
    ...(plan.baseImage ? [describeBaseImage(plan.baseImage.wanted, plan.baseImage.standIn)] : []),
    ...plan.directory.map(describeDirectoryStep),
    ...(settings.length > 0 ? [`write .env: ${settings.join(', ')}`] : []),
    ...(plan.restrictDotenv ? ['restrict .env: mode 0600'] : []),
  ];
}

async function writeSettings(project: Project, plan: SetupPlan, image: BaseImage | undefined): Promise<void> {
  const changes = { ...plan.settings, ...(image ? rememberImage(project, image.reference) : {}) };
  const named = Object.entries(changes).map(([name, value]) => [variableName(project, name), value] as const);
  const path = join(project.root, '.env');
  const written = await updateDotenv(project.root, Object.fromEntries(named));
  if (plan.restrictDotenv) await run(['chmod', '0600', path]);
  const { uid, gid } = await stat(project.root);
  // Through sudo, the file would be root's, and the next task of its user could not read it.
  if (written && process.getuid?.() === 0 && uid !== 0) await run(['chown', `${uid}:${gid}`, path]);
}

/** Carries the plan out; every step is safe to repeat. @throws TaskError, CommandError */
export async function applySetup(project: Project, plan: SetupPlan): Promise<BaseImage | undefined> {
  await applyEngine(plan.engine.steps, plan.engine.observed);
  const { baseImage } = plan;
  const image = baseImage ? await ensureBaseImage(baseImage.wanted, baseImage.standIn) : undefined;
  if (image && image.source !== 'present')
    log.done(`base image ${image.reference} ${image.source}, ${image.seconds} s`);
  for (const step of plan.directory) {
    log.step(describeDirectoryStep(step));
    await applyDirectoryStep(step);
  }
  await writeSettings(project, plan, image);
  return image;
}

// Is there a Docker engine, and if not, bring one up. A running engine is always reused, never replaced.

async function applyStep(step: EngineStep, { distribution, systemd }: EngineObserved): Promise<void> {
  switch (step.act) {
    case 'configure':
      return configureEngine();
    case 'install':
      return installEngine(step.packages);
    case 'unpack':
      return unpackEngine({ codename: distribution.codename, suite: step.suite }, step.packages, systemd);
    case 'start':
      return step.by === 'systemd' ? startService() : startDaemon();
  }
}

/** What is installed and what is unpacked come from two suites, and neither waits for the other. Pure. */
function inGroups(steps: readonly EngineStep[]): EngineStep[][] {
  const bringsPrograms = ({ act }: EngineStep) => act === 'install' || act === 'unpack';
  const programs = steps.filter(bringsPrograms);
  return steps.flatMap((step) => {
    if (!bringsPrograms(step)) return [[step]];
    return step === programs[0] ? [programs] : [];
  });
}

async function apply(step: EngineStep, observed: EngineObserved): Promise<void> {
  const began = performance.now();
  log.step(describeEngineStep(step));
  await applyStep(step, observed);
  log.detail(`  ${describeEngineStep(step)}: ${seconds(began)} s`);
}

/**
 * Carries a plan out, one log line per act, and proves the result.
 * @throws TaskError, CommandError; what was installed until then stays and is not installed again
 */
async function applyEngine(steps: readonly EngineStep[], observed: EngineObserved): Promise<void> {
  for (const group of inGroups(steps)) await allOrThrow(...group.map((step) => apply(step, observed)));
  if (steps.length === 0 || session.dryRun) return;
  // Also refuses an engine that was installed before us and, now that it runs, turns out to be too old.
  planEngine(await observeEngine());
}

interface EngineReport {
  /** True if this call started the daemon: then its caller may stop it again by `stopEngine`. */
  started: boolean;
  /** What was done, one line each; empty if a usable engine was there. */
  steps: string[];
  seconds: number;
}

/**
 * Makes sure that a usable engine answers; `confirm` gets the plan's lines before any change and throws
 * to refuse it.
 * @throws TaskError where an engine cannot be had, saying what to do
 */
export async function ensureEngine(confirm: (plan: string[]) => Promise<void>): Promise<EngineReport> {
  const began = performance.now();
  const observed = await observeEngine();
  const plan = planEngine(observed);
  const steps = plan.map(describeEngineStep);
  if (plan.length > 0) await confirm(steps);
  await applyEngine(plan, observed);
  return { started: plan.some(({ act }) => act === 'start'), steps, seconds: seconds(began) };
}

/** Stops the engine in its standard place, and with it every container: for who started it. */
export async function stopEngine(): Promise<void> {
  const { systemd } = await observeEngine();
  await (systemd ? stopService() : stopDaemon());
}
