// What a check is, what it finds, and what checks ask: each question put once however many checks need its answer, and
// all questions to the engine over one connection.
import { z } from 'zod';
import { parseServices, resolvedModel } from '../docker/compose.ts';
import { engineEndpoint, engineInfo, isLocalEndpoint, queryEngine } from '../docker/engine.ts';
import { listNetworks, projectContainers } from '../docker/objects.ts';
import { type Project, variable } from '../project.ts';
import { releaseTags } from '../release/record.ts';

/** `unchecked`: it could not be asked, or does not apply, and the detail says why; never counted as well. */
export type Verdict = 'ok' | 'warning' | 'failed' | 'unchecked';

export interface Finding {
  verdict: Verdict;
  detail: string;
  /** What to do; every failure has one. */
  remedy?: string;
}

/** How a check reports a problem, with what to do about it. */
export interface Report {
  fail: (detail: string, remedy: string) => void;
  warn: (detail: string, remedy: string) => void;
}

export interface Check {
  /** Stable, machine-readable. */
  id: string;
  title: string;
  /** It asks nothing that .env decides, so it can be made without one. */
  withoutDotenv?: true;
  /** What is well, shown where nothing was reported; or why nothing could be checked. */
  check: (facts: Facts, report: Report) => Promise<string | Finding>;
}

export const unchecked = (why: string): Finding => ({ verdict: 'unchecked', detail: why });

/** Every problem that a check finds as one finding: the worst decides, each remedy once. */
export async function findingOf({ check }: Pick<Check, 'check'>, facts: Facts): Promise<Finding> {
  const found: Required<Finding>[] = [];
  const add = (verdict: Verdict) => (detail: string, remedy: string) =>
    void found.push({ verdict, detail, remedy });
  const well = await check(facts, { fail: add('failed'), warn: add('warning') });
  if (found.length === 0) return typeof well === 'string' ? { verdict: 'ok', detail: well } : well;
  const verdict = found.some((one) => one.verdict === 'failed') ? 'failed' : 'warning';
  const remedies = new Set(found.map(({ remedy }) => remedy));
  return { verdict, detail: found.map(({ detail }) => detail).join('\n'), remedy: [...remedies].join('\n') };
}

/** Asks at the first call, and remembers, a failure too. */
function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined;
  return () => {
    answer ??= ask();
    return answer;
  };
}

export type Facts = ReturnType<typeof collectFacts>;

export function collectFacts(project: Project) {
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
    releases: once(() => releaseTags(project.root, project.release.tag_prefix)),
    /** The engine sees this machine's files and ports. */
    isLocal: once(async () => isLocalEndpoint(await engineEndpoint())),
    endpoint: once(engineEndpoint),
  };
}

// The answers of engine and compose to the doctor's questions, checked at this edge.

export type LocalImage = z.output<typeof imageSchema>;

const imageSchema = z
  .object({
    Id: z.string(),
    RepoTags: z.array(z.string()).nullish(),
    Labels: z.record(z.string(), z.string()).nullish(),
  })
  .transform(({ Id, RepoTags, Labels }) => ({ id: Id, names: RepoTags ?? [], labels: Labels ?? {} }));
