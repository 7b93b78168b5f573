// What the checks ask, each question put once however many checks need its answer, and all questions to the engine
// over one connection.
import { resolvedConfig } from '../docker/compose-config.ts';
import { type ComposeService, parseServices } from '../docker/compose-schema.ts';
import { type Container, projectContainers } from '../docker/containers.ts';
import { engineEndpoint, isLocalEndpoint } from '../docker/endpoint.ts';
import type { AskEngine } from '../docker/engine-api.ts';
import { type EngineInfo, readInfo } from '../docker/engine-info.ts';
import { type Project, variable } from '../project.ts';
import { type ReleaseTag, releaseTags } from '../release/release-tags.ts';
import { type EngineAnswers, readImages, readListed, readNetworks } from './engine-answers.ts';

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
