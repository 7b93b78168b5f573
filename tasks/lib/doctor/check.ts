// What a check is: a value with a name and a question, answered by a finding. Checks live in lists, so that one can
// be added, tested and timed without touching the others.

import { z } from 'zod';
import { type ComposeService, parseServices, resolvedConfig } from '../docker/compose.ts';
import {
  type AskEngine,
  type EngineInfo,
  engineEndpoint,
  isLocalEndpoint,
  readInfo,
} from '../docker/engine.ts';
import { type Container, projectContainers } from '../docker/objects.ts';
import { imageName, type Project, variable } from '../project.ts';
import { type ReleaseTag, releaseTags } from '../release/record.ts';
/** `unchecked`: it could not be asked, or does not apply, and the detail says why; never counted as well. */
export type Verdict = 'ok' | 'warning' | 'failed' | 'unchecked';

export interface Finding {
  verdict: Verdict;
  detail: string;
  /** What to do; every failure has one. */
  remedy?: string;
}

export interface Check {
  /** Stable, machine-readable. */
  id: string;
  title: string;
  /** It asks nothing that .env decides, so it can be made without one. */
  withoutDotenv?: true;
  run: (facts: Facts) => Promise<Finding> | Finding;
}

export const ok = (detail: string): Finding => ({ verdict: 'ok', detail });
export const unchecked = (why: string): Finding => ({ verdict: 'unchecked', detail: why });
export const warning = (detail: string, remedy: string): Finding => ({ verdict: 'warning', detail, remedy });
export const failed = (detail: string, remedy: string): Finding => ({ verdict: 'failed', detail, remedy });

/** One element of a list of problems, or none. */
export function when(condition: unknown, problem: () => Finding): Finding[] {
  return condition ? [problem()] : [];
}

/** Several things that one check may find: ok if none, with every detail and every remedy once. */
export function gather(problems: readonly Finding[], well: string): Finding {
  if (problems.length === 0) return ok(well);
  const verdict = problems.some((one) => one.verdict === 'failed') ? 'failed' : 'warning';
  const remedies = [...new Set(problems.flatMap(({ remedy }) => remedy ?? []))];
  return { verdict, detail: problems.map(({ detail }) => detail).join('\n'), remedy: remedies.join('\n') };
}

// What the checks ask, each question put once however many checks need its answer, and all questions to the engine
// over one connection.

export interface Facts {
  project: Project;
  ask: AskEngine;
  info: () => Promise<EngineInfo>;
  networks: () => Promise<EngineAnswers['networks']>;
  /** Every container of the engine, in short. */
  listed: () => Promise<EngineAnswers['listed']>;
  /** The project's own containers, in full. */
  containers: () => Promise<Container[]>;
  /** The images under the project's name. */
  images: () => Promise<EngineAnswers['images']>;
  /** The compose files, resolved: text as compose printed it. */
  resolved: () => Promise<string>;
  services: () => Promise<Record<string, ComposeService>>;
  releases: () => Promise<ReleaseTag[]>;
  /** The engine sees this machine's files and ports. */
  isLocal: () => Promise<boolean>;
}

/** Asks at the first call, and remembers, a failure too. */
function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined;
  return () => {
    answer ??= ask();
    return answer;
  };
}

export function collectFacts(project: Project, ask: AskEngine): Facts {
  const info = once(() => readInfo(ask));
  // Where no engine answers to the first question, none of the others is put.
  const afterInfo = <T>(question: () => Promise<T>) => once(() => info().then(question));
  const resolved = once(() => resolvedConfig(project, variable(project, 'PROD_TAG')));
  return {
    project,
    ask,
    info,
    networks: afterInfo(() => readNetworks(ask)),
    listed: afterInfo(() => readListed(ask)),
    containers: afterInfo(() => projectContainers(project, ask)),
    images: afterInfo(() => readImages(ask, project)),
    resolved,
    services: once(async () => parseServices(project, await resolved())),
    releases: once(() => releaseTags(project.root, project.release.tag_prefix)),
    isLocal: once(async () => isLocalEndpoint(await engineEndpoint())),
  };
}

// The engine's answers to the doctor's questions, checked at this edge.

interface EngineAnswers {
  networks: { id: string; name: string; subnets: string[]; bridge: string }[];
  listed: { id: string; name: string; project: string; labels: Record<string, string>; ports: number[] }[];
  images: { id: string; names: string[]; labels: Record<string, string> }[];
}

const BRIDGE = 'com.docker.network.bridge.name';

async function readNetworks(ask: AskEngine): Promise<EngineAnswers['networks']> {
  const network = z.object({
    Id: z.string(),
    Name: z.string(),
    IPAM: z.object({ Config: z.array(z.object({ Subnet: z.string().default('') })).nullish() }),
    Options: z.record(z.string(), z.string()).nullish(),
  });
  const answer = z.array(network).parse(await ask('/networks'));
  return answer.map(({ Id, Name, IPAM, Options }) => ({
    id: Id,
    name: Name,
    subnets: (IPAM.Config ?? []).map(({ Subnet }) => Subnet).filter(Boolean),
    bridge: Options?.[BRIDGE] ?? `br-${Id.slice(0, 12)}`,
  }));
}

const COMPOSE_PROJECT = 'com.docker.compose.project';

async function readListed(ask: AskEngine): Promise<EngineAnswers['listed']> {
  const container = z.object({
    Id: z.string(),
    Names: z.array(z.string()).default([]),
    Labels: z.record(z.string(), z.string()).nullish(),
    Ports: z.array(z.object({ PublicPort: z.number().optional() })).default([]),
  });
  const answer = z.array(container).parse(await ask('/containers/json?all=1'));
  return answer.map(({ Id, Names, Labels, Ports }) => ({
    id: Id,
    name: (Names[0] ?? Id).replace(/^\//, ''),
    project: Labels?.[COMPOSE_PROJECT] ?? '',
    labels: Labels ?? {},
    ports: Ports.flatMap(({ PublicPort }) => PublicPort ?? []),
  }));
}

async function readImages(ask: AskEngine, project: Project): Promise<EngineAnswers['images']> {
  const image = z.object({
    Id: z.string(),
    RepoTags: z.array(z.string()).nullish(),
    Labels: z.record(z.string(), z.string()).nullish(),
  });
  const filters = encodeURIComponent(JSON.stringify({ reference: [imageName(project)] }));
  const answer = z.array(image).parse(await ask(`/images/json?filters=${filters}`));
  return answer.map(({ Id, RepoTags, Labels }) => ({ id: Id, names: RepoTags ?? [], labels: Labels ?? {} }));
}
