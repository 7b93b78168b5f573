// The engine's answers to the doctor's questions, checked at this edge.
import type { AskEngine } from '../docker/engine-api.ts';
import { imageName, type Project } from '../project.ts';

export interface EngineAnswers {
  networks: { id: string; name: string; subnets: string[]; bridge: string }[];
  listed: { id: string; name: string; project: string; labels: Record<string, string>; ports: number[] }[];
  images: { id: string; names: string[]; labels: Record<string, string> }[];
}

const BRIDGE = 'com.docker.network.bridge.name';

export async function readNetworks(ask: AskEngine): Promise<EngineAnswers['networks']> {
  const { z } = await import('#zod');
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

export async function readListed(ask: AskEngine): Promise<EngineAnswers['listed']> {
  const { z } = await import('#zod');
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

export async function readImages(ask: AskEngine, project: Project): Promise<EngineAnswers['images']> {
  const { z } = await import('#zod');
  const image = z.object({
    Id: z.string(),
    RepoTags: z.array(z.string()).nullish(),
    Labels: z.record(z.string(), z.string()).nullish(),
  });
  const filters = encodeURIComponent(JSON.stringify({ reference: [imageName(project)] }));
  const answer = z.array(image).parse(await ask(`/images/json?filters=${filters}`));
  return answer.map(({ Id, RepoTags, Labels }) => ({ id: Id, names: RepoTags ?? [], labels: Labels ?? {} }));
}
