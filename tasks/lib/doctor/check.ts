// What a check of the doctor is, what checks ask (each question once, those to the engine over one connection), and how
// they are run and shown. A check changes nothing, and none stops the others.
import { z } from 'zod';
import { parseServices, resolvedModel } from '../docker/compose.ts';
import { engineEndpoint, engineInfo, isLocalEndpoint, queryEngine, withEngine } from '../docker/engine.ts';
import { listNetworks, projectContainers } from '../docker/objects.ts';
import type { EffectiveConfig } from '../docker/service-config.ts';
import { TaskError } from '../errors.ts';
import { paint } from '../log.ts';
import { loadProject, type Project, variable } from '../project.ts';
import { releasesHere } from '../release/record.ts';

/** Each verdict's mark. `unchecked`: it could not be asked, or does not apply, and the detail says why. */
const MARKS = {
  ok: ['✓', 'green'],
  warning: ['!', 'yellow'],
  failed: ['✗', 'red'],
  unchecked: ['–', 'dim'],
} as const;

export type Verdict = keyof typeof MARKS;

export interface Finding {
  verdict: Verdict;
  detail: string;
  /** What to do; every failure has one. */
  remedy?: string;
}

/** How a check reports a problem, with what to do about it. */
export type Report = Record<'fail' | 'warn', (detail: string, remedy: string) => void>;

export interface Check {
  /** Stable, machine-readable. */
  id: string;
  title: string;
  /** It asks nothing that .env decides, so it can be made without one. */
  withoutDotenv?: true;
  /** Reports problems; returns what is well, shown where there are none, or why nothing could be checked. */
  look: (facts: Facts, report: Report) => Promise<string | Finding>;
}

export const unchecked = (why: string): Finding => ({ verdict: 'unchecked', detail: why });

/** Every problem that a check finds as one finding: the worst decides, each remedy once. */
export async function findingOf({ look }: Pick<Check, 'look'>, facts: Facts): Promise<Finding> {
  const found: Required<Finding>[] = [];
  const add = (verdict: Verdict) => (detail: string, remedy: string) =>
    void found.push({ verdict, detail, remedy });
  const well = await look(facts, { fail: add('failed'), warn: add('warning') });
  if (found.length === 0) return typeof well === 'string' ? { verdict: 'ok', detail: well } : well;
  const verdict = found.some((one) => one.verdict === 'failed') ? 'failed' : 'warning';
  const remedies = new Set(found.map(({ remedy }) => remedy));
  return { verdict, detail: found.map(({ detail }) => detail).join('\n'), remedy: [...remedies].join('\n') };
}

/** A check that cannot be made has not failed: without an engine, only the engine's own check fails. */
function findingOfError(error: unknown, { id }: Check): Finding {
  const { code, hint } = error instanceof TaskError ? error : {};
  if (code === 'interrupted') throw error;
  if (code === 'engine-down' && id !== 'engine') return unchecked('no Docker engine answers');
  if (code === 'compose-invalid' && id !== 'compose-config')
    return unchecked('the compose files cannot be read');
  const detail = error instanceof Error ? error.message : String(error);
  return { verdict: 'failed', detail, remedy: hint ?? 'run again with --verbose' };
}

export interface Examined extends Finding {
  id: string;
  title: string;
  /** Waiting for an answer that another check asked for included. */
  seconds: number;
}

/** Most checks ask one process each, and a small machine is soon full of them. */
const AT_ONCE = 4;

/** Every check's finding, in the order of the list. @throws TaskError (exit 2) if release.toml is not valid */
export async function examine(checks: readonly Check[]): Promise<Examined[]> {
  const { project, hasDotenv } = await loadAnyway();
  return withEngine(async () => {
    const facts = collectFacts(project);
    const examineOne = async (check: Check): Promise<Examined> => {
      const { id, title, withoutDotenv } = check;
      const began = performance.now();
      const finding =
        hasDotenv || withoutDotenv
          ? await findingOf(check, facts).catch((error: unknown) => findingOfError(error, check))
          : unchecked('.env cannot be read');
      return { id, title, ...finding, seconds: Math.round(performance.now() - began) / 1000 };
    };
    const findings: Examined[] = [];
    const waiting = [...checks.entries()];
    const worker = async () => {
      for (let next = waiting.shift(); next; next = waiting.shift())
        findings[next[0]] = await examineOne(next[1]);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    return findings;
  });
}

/** The project, also where its .env cannot be read: that is a finding, and the rest can still be looked at. */
async function loadAnyway(): Promise<{ project: Project; hasDotenv: boolean }> {
  try {
    return { project: await loadProject(), hasDotenv: true };
  } catch (error) {
    if (!(error instanceof TaskError) || error.code !== 'dotenv-unreadable') throw error;
    return { project: await loadProject(undefined, async () => ({})), hasDotenv: false };
  }
}

export type Facts = ReturnType<typeof collectFacts>;

function collectFacts(project: Project) {
  const info = once(engineInfo);
  // Where no engine answers to the first question, none of the others is put.
  const afterInfo = <T>(question: () => Promise<T>) => once(() => info().then(question));
  const reference = encodeURIComponent(JSON.stringify({ reference: [project.image.name] }));
  const model = once(() => resolvedModel(project, variable(project, 'PROD_TAG')));
  return {
    project,
    ask: queryEngine,
    info,
    networks: afterInfo(listNetworks),
    /** The project's own containers, in full. */
    containers: afterInfo(() => projectContainers(project)),
    /** The images under the project's name. */
    images: afterInfo(async () =>
      z.array(imageSchema).parse(await queryEngine(`/images/json?filters=${reference}`)),
    ),
    services: once(async () => parseServices(await model())),
    model,
    releases: once(() => releasesHere(project)),
    endpoint: once(engineEndpoint),
    /** The engine sees this machine's files and ports. */
    isLocal: once(async () => isLocalEndpoint(await engineEndpoint())),
  };
}

/** Asks at the first call, and remembers, a failure too. */
function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined;
  return () => {
    answer ??= ask();
    return answer;
  };
}

export type LocalImage = z.output<typeof imageSchema>;

const imageSchema = z
  .object({
    Id: z.string(),
    RepoTags: z.array(z.string()).nullish(),
    Labels: z.record(z.string(), z.string()).nullish(),
  })
  .transform(({ Id, RepoTags, Labels }) => ({ id: Id, names: RepoTags ?? [], labels: Labels ?? {} }));

// Findings as a checklist.

function describeOne({ verdict, title, detail, remedy = '' }: Examined): string {
  const [mark, style] = MARKS[verdict];
  const what = verdict === 'unchecked' ? `not checked: ${detail}` : detail;
  const remedies = remedy.split('\n').filter(Boolean);
  const lines = [...what.split('\n'), ...remedies.map((line) => `→ ${line}`)];
  return `${paint(style, mark, process.stdout)} ${title.padEnd(29)} ${lines.join(`\n${' '.repeat(32)}`)}`;
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
  const lines = rows.map((row) => `  ${row[0].padEnd(width(0))}${row[1].padEnd(width(1))}${row[2]}`);
  return [`Configuration of ${environment}, and where each value comes from`, ...lines].join('\n');
}
