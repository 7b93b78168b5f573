// What this machine needs to build and run the project: engine, base image, data directory, .env. Planned as a whole, so
// that one question covers everything and a second run finds nothing to do.

import { stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { run } from '../command.ts';
import { updateDotenv } from '../dotenv.ts';
import { statePath } from '../files.ts';
import { withLock } from '../lock.ts';
import { dataDirectory, type Project, variable, variableName } from '../project.ts';
import { interruptedRun, type Journey, resumeSteps, runSteps, type Step } from '../steps.ts';
import { planBaseImage } from './base-image.ts';
import { chooseOwner, type Owner, observeDataDirectory, planDataDirectory } from './data-directory.ts';
import { type EngineObserved, observeEngine, planEngine } from './engine.ts';

/** CPUs of one container by design; fewer where the machine has fewer, because the engine refuses more. */
const CONTAINER_CPUS = 3;
const PRIVATE_FILE = 0o600;

/** Names without their prefix, compose's own excepted; undefined removes a setting. */
type Settings = Record<string, string | undefined>;

/** Looks at everything; changes nothing. @throws TaskError where a step could not be carried out */
export async function planSetup(project: Project): Promise<Step<unknown>[]> {
  const observed = await observeEngine();
  const machine = await planMachine(project, observed);
  return [...machine, ...(await planDataDirectory(project, observed.server.state === 'ready'))];
}

/** All but the data directory, which may still be the older service's. */
export async function planMachine(project: Project, observed: EngineObserved): Promise<Step<unknown>[]> {
  const engine = planEngine(observed);
  const image = await planBaseImage(project, observed.server.state === 'ready');
  const owner = chooseOwner(project, await observeDataDirectory(project));
  const settings = { ...planSettings(project, owner), ...image.settings };
  return [...engine, ...image.steps, ...(await planDotenv(project, settings))];
}

/** The settings that .env lacks, or that this machine cannot honour. */
function planSettings(project: Project, owner: Owner): Settings {
  const wanted = { DATA_DIR: dataDirectory(project), UID: String(owner.uid), GID: String(owner.gid) };
  const missing = Object.entries(wanted).filter(([name]) => !variable(project, name));
  const isTooMany = Number(variable(project, 'CPUS') ?? CONTAINER_CPUS) > availableParallelism();
  // So that `docker compose ps`, `logs` and `exec` work in the project's folder without flags.
  const ownNames = {
    COMPOSE_FILE: project.project.compose.join(':'),
    COMPOSE_PROJECT_NAME: project.project.name,
  };
  missing.push(...Object.entries(ownNames).filter(([name]) => !project.dotenv[name]));
  return { ...Object.fromEntries(missing), ...(isTooMany ? { CPUS: String(availableParallelism()) } : {}) };
}

async function planDotenv(project: Project, settings: Settings): Promise<Step<unknown>[]> {
  const steps: Step<unknown>[] = [];
  const lines = Object.entries(settings).map(([name, value]) => `${fullName(project, name)}=${value ?? ''}`);
  if (lines.length > 0) {
    const title = `write .env: ${lines.join(', ')}`;
    steps.push({ name: 'dotenv', title, apply: () => writeSettings(project, settings) });
  }
  const path = join(project.root, '.env');
  const found = await stat(path).catch(() => undefined);
  if (found && (found.mode & 0o777) !== PRIVATE_FILE)
    steps.push({
      name: 'dotenv-mode',
      title: 'restrict .env: mode 0600',
      apply: () => run(['chmod', '0600', path]),
    });
  return steps;
}

function fullName(project: Project, name: string): string {
  return name.startsWith('COMPOSE_') ? name : variableName(project, name);
}

function writeSettings(project: Project, settings: Settings) {
  const named = Object.entries(settings).map(([name, value]) => [fullName(project, name), value] as const);
  return updateDotenv(project.root, Object.fromEntries(named));
}

/** Carries the plan out. Every step is safe to repeat: after a failure or a kill, plan and apply again. */
export async function applySetup(project: Project, steps: readonly Step<unknown>[]): Promise<void> {
  const journey: Journey<unknown> = {
    ...{ root: project.root, task: 'setup', command: 'npm run setup', schema: z.unknown() },
    ...{ steps: () => steps, history: () => ({ from: null, to: null }) },
  };
  if (steps.length === 0 && !(await interruptedRun(journey))) return;
  await withLock(project.root, 'setup', async () => {
    try {
      await resumeSteps(journey);
      if (steps.length > 0) await runSteps(journey, {});
    } finally {
      await giveToOwner(project.root);
    }
  });
}

/** Through sudo, what we wrote would be root's, and the next task of the project's owner could not read it. */
async function giveToOwner(root: string): Promise<void> {
  const { uid, gid } = await stat(root);
  if (process.getuid?.() !== 0 || uid === 0) return;
  for (const path of [join(root, '.env'), statePath(root)])
    if (await stat(path).catch(() => undefined)) await run(['chown', '-hR', `${uid}:${gid}`, path]);
}
