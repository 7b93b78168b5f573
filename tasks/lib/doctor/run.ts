// Running checks: a few at a time, so that a small machine is not flooded with processes, each timed, none able to
// stop the others.

import { withEngine } from '../docker/engine.ts';
import type { EffectiveConfig } from '../docker/service-config.ts';
import { TaskError } from '../errors.ts';
import { paint } from '../log.ts';
import { loadProject, type Project } from '../project.ts';
import {
  type Check,
  collectFacts,
  type Facts,
  type Finding,
  findingOf,
  unchecked,
  type Verdict,
} from './check.ts';
import { LIVE_CHECKS } from './live.ts';
import { MACHINE_CHECKS } from './machine.ts';
import { PROJECT_CHECKS } from './project.ts';
import { STATE_CHECKS } from './state.ts';

export const CHECKS: readonly Check[] = [...MACHINE_CHECKS, ...PROJECT_CHECKS, ...STATE_CHECKS];

interface Examined extends Finding {
  id: string;
  title: string;
  /** Waiting for an answer that another check asked for included. */
  seconds: number;
}

/** Most checks ask one process each. */
const AT_ONCE = 4;

/** A check that cannot be made has not failed: without an engine, only the engine's own check fails. */
function findingOfError(error: unknown, { id }: Check): Finding {
  const { code, hint } = error instanceof TaskError ? error : {};
  if (code === 'interrupted') throw error;
  if (code === 'engine-down' && id !== 'engine') return unchecked('no Docker engine answers');
  // A compose file that cannot be read is the finding of its own check.
  if (code === 'compose-invalid' && id !== 'compose-config')
    return unchecked('the compose files cannot be read');
  const detail = error instanceof Error ? error.message : String(error);
  return { verdict: 'failed', detail, remedy: hint ?? 'run again with --verbose' };
}

async function examineOne(facts: Facts, check: Check): Promise<Examined> {
  const began = performance.now();
  const finding = await findingOf(check, facts).catch((error: unknown) => findingOfError(error, check));
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
    hasDotenv || check.withoutDotenv
      ? check
      : { ...check, check: async () => unchecked('.env cannot be read') },
  );
  return withEngine(async () => {
    const facts = collectFacts(project);
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

// Findings as a checklist.

const MARKS: Record<Verdict, [mark: string, style: 'green' | 'yellow' | 'red' | 'dim']> = {
  ok: ['✓', 'green'],
  warning: ['!', 'yellow'],
  failed: ['✗', 'red'],
  unchecked: ['–', 'dim'],
};

function describeOne({ verdict, title, detail, remedy }: Examined): string {
  const [mark, style] = MARKS[verdict];
  const [first, ...rest] = detail.split('\n');
  const why = verdict === 'unchecked' ? `not checked: ${first}` : first;
  const indent = ' '.repeat(32);
  const lines = [
    `${paint(style, mark, process.stdout)} ${title.padEnd(29)} ${why}`,
    ...rest.map((line) => indent + line),
  ];
  const remedies = verdict === 'ok' || !remedy ? [] : remedy.split('\n').map((line) => `${indent}→ ${line}`);
  return [...lines, ...remedies].join('\n');
}

export function countVerdicts(findings: readonly Examined[]): Record<Verdict, number> {
  const counts = { ok: 0, warning: 0, failed: 0, unchecked: 0 };
  for (const { verdict } of findings) counts[verdict] += 1;
  return counts;
}

export function describeFindings(findings: readonly Examined[]): string {
  const { ok, warning, failed, unchecked } = countVerdicts(findings);
  const optional = [warning && `${warning} to look at`, unchecked && `${unchecked} not checked`];
  const summary = [`${ok} ok`, `${failed} failed`, ...optional.filter(Boolean)];
  return [...findings.map(describeOne), '', summary.join(', ')].join('\n');
}

/** One line a key: what it is, and which layer says so. */
export function describeEffectiveConfig({ environment, values }: EffectiveConfig): string {
  const rows = values.map(({ path, value, origin }) => [path, JSON.stringify(value), origin] as const);
  const width = (index: 0 | 1) => Math.max(...rows.map((row) => row[index].length)) + 2;
  const lines = rows.map(
    ([path, value, origin]) => `  ${path.padEnd(width(0))}${value.padEnd(width(1))}${origin}`,
  );
  return [`Configuration of ${environment}, and where each value comes from`, ...lines].join('\n');
}
