// Running checks: a few at a time, so that a small machine is not flooded with processes, each timed, none able to
// stop the others.
import { withEngine } from '../docker/engine-api.ts';
import { TaskError } from '../errors.ts';
import { loadProject, type Project } from '../project.ts';
import { CAPACITY_CHECKS } from './capacity-checks.ts';
import { type Check, type Finding, unchecked } from './check.ts';
import { CONFIG_CHECKS } from './config-checks.ts';
import { ENGINE_CHECKS } from './engine-checks.ts';
import { collectFacts, type Facts } from './facts.ts';
import { LIVE_CHECKS } from './live-checks.ts';
import { NETWORK_CHECKS } from './network-checks.ts';
import { RELEASE_CHECKS } from './release-checks.ts';
import { REPOSITORY_CHECKS } from './repository-checks.ts';
import { STATE_CHECKS } from './state-checks.ts';
import { STORAGE_CHECKS } from './storage-checks.ts';

export const CHECKS: readonly Check[] = [
  ...ENGINE_CHECKS,
  ...CAPACITY_CHECKS,
  ...CONFIG_CHECKS,
  ...STORAGE_CHECKS,
  ...NETWORK_CHECKS,
  ...REPOSITORY_CHECKS,
  ...RELEASE_CHECKS,
  ...STATE_CHECKS,
];

export interface Examined extends Finding {
  id: string;
  title: string;
  /** Waiting for an answer that another check asked for included. */
  seconds: number;
}

/** Most checks ask one process each. */
const AT_ONCE = 4;

/** A check that cannot be made is told from one that fails: only the engine's own check fails without an engine. */
function findingOf(error: unknown, { id }: Check): Finding {
  const known = error instanceof TaskError;
  if (known && error.code === 'interrupted') throw error;
  const message = error instanceof Error ? error.message : String(error);
  const remedy = (known && error.hint) || 'run again with --verbose';
  if (known && error.code === 'engine-down' && id !== 'engine') {
    return { verdict: 'unchecked', detail: 'no Docker engine answers' };
  }
  // A compose file that cannot be read is the finding of its own check.
  if (known && error.code === 'compose-invalid' && id !== 'compose-config') {
    return { verdict: 'unchecked', detail: 'the compose files cannot be read' };
  }
  return { verdict: 'failed', detail: message, remedy };
}

const WITHOUT_DOTENV = unchecked('.env cannot be read');

async function examineOne(facts: Facts, check: Check): Promise<Examined> {
  const began = performance.now();
  const finding = await Promise.resolve()
    .then(() => check.run(facts))
    .catch((error: unknown) => findingOf(error, check));
  const seconds = Math.round(performance.now() - began) / 1000;
  return { id: check.id, title: check.title, ...finding, seconds };
}

/** The project, also where its .env cannot be read: that is a finding, and the rest can still be looked at. */
async function loadPatient(): Promise<{ project: Project; hasDotenv: boolean }> {
  try {
    return { project: await loadProject(), hasDotenv: true };
  } catch (error) {
    if (!(error instanceof TaskError) || error.code !== 'dotenv-unreadable') throw error;
    return { project: await loadProject(undefined, async () => ({})), hasDotenv: false };
  }
}

/** Every check's finding, in the order of the list. @throws TaskError (exit 2) if release.toml is not valid */
export async function examine({ live }: { live: boolean }): Promise<Examined[]> {
  const { project, hasDotenv } = await loadPatient();
  const checks = (live ? [...CHECKS, ...LIVE_CHECKS] : CHECKS).map((check) =>
    hasDotenv || check.withoutDotenv ? check : { ...check, run: () => WITHOUT_DOTENV },
  );
  return withEngine(async (ask) => {
    const facts = collectFacts(project, ask);
    const findings: Examined[] = [];
    const waiting = checks.map((check, index) => ({ check, index }));
    const worker = async () => {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        findings[next.index] = await examineOne(facts, next.check);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    return findings;
  });
}
