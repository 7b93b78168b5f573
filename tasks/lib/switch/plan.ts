// From what is to what should be: a switch as data, worked out before anything is touched. Pure. The data is all that
// the steps need (replace.ts, run.ts), so that another process can resume from it.

import { z } from 'zod';
import { type ActiveEnvironment, environmentsOf } from '../active.ts';
import { DIGEST_LABEL } from '../docker/compose.ts';
import type { Image } from '../docker/objects.ts';
import { ENVIRONMENTS, type EnvironmentName } from '../project.ts';
import { type EngineSnapshot, type EnvironmentState, type Observation, unhealthyReason } from './observe.ts';

export interface SwitchTarget {
  active: ActiveEnvironment;
  /** The release that prod shall run; undefined keeps what .env says. */
  prodTag: string | undefined;
  /** `Image.id` of the image that each environment shall run. */
  imageIds: Partial<Record<EnvironmentName, string>>;
  /** The images as the engine has them; prod's comes later when it has to be fetched first. */
  images: Partial<Record<EnvironmentName, Image>>;
  /** A running dev keeps its image: only prod's release was chosen, and dev does not follow `latest`. */
  keepsDev?: boolean;
  /** How prod's image, which is not here, is had. */
  fetch?: 'pull' | 'build' | undefined;
}

export const environment = z.enum(ENVIRONMENTS);

const choice = z.object({
  active: z.enum([...ENVIRONMENTS, 'both', 'none']),
  prodTag: z.string().nullable(),
});

/** What is chosen, on whatever runs the services. */
export const choiceSchema = z.object({
  from: choice,
  to: choice,
  fetch: z.enum(['pull', 'build']).nullable(),
  /** What each environment that starts shall run; the labels say what /health must report. */
  images: z.partialRecord(
    environment,
    z.object({ id: z.string(), labels: z.record(z.string(), z.string()) }),
  ),
  /** Seconds that an environment may take to become healthy; null: as release.toml says. */
  waitSeconds: z.number().nullable(),
});

const container = z.object({
  id: z.string(),
  name: z.string(),
  /** It ran, or was about to. */
  up: z.boolean(),
  /** It answered well: worth waiting for when it is brought back. */
  answered: z.boolean(),
  restartPolicy: z.string(),
});

const start = z.object({
  environment,
  /** `create`: there is no container · `replace`: by a new one · `resume`: the present one is right, but stopped. */
  how: z.enum(['create', 'replace', 'resume']),
  reason: z.string(),
  containerName: z.string(),
  restartPolicy: z.string(),
  /** The container that it had. */
  old: container.nullable(),
  /** The one that starts: a new one's name until its id is known. */
  next: z.string().nullable(),
});

const dependency = z.object({
  service: z.string(),
  neededBy: z.string(),
  /** Compose's conditions: service_started, service_healthy, service_completed_successfully. */
  conditions: z.array(z.string()),
  /** It ran before. */
  up: z.boolean(),
});

export const switchSchema = choiceSchema.extend({
  dependencies: z.array(dependency),
  starts: z.array(start),
  stops: z.array(z.object({ environment, old: container })),
  /** Every container that the project had; any other was made by this switch. */
  containers: z.array(z.string()),
});

export type Choice = z.output<typeof choiceSchema>;
export type Dependency = z.output<typeof dependency>;
export type SwitchData = z.output<typeof switchSchema>;
export type StartData = z.output<typeof start>;
export type ContainerBefore = z.output<typeof container>;

/** How an environment has to be started and why; undefined when it runs as it should. */
export function planStart(
  state: EnvironmentState,
  imageId: string | undefined,
): { how: StartData['how']; reason: string } | undefined {
  const { container, outdated, containerName, cannotStart } = state;
  if (!container) return { how: 'create', reason: 'it has no container' };
  const replace = (reason: string) => ({ how: 'replace' as const, reason });
  if (imageId !== undefined && container.imageId !== imageId) return replace('it runs another image');
  if (outdated && container.labels[DIGEST_LABEL] === undefined)
    return replace('somebody ran docker compose with another configuration');
  if (outdated) return replace('its configuration changed');
  if (container.name !== containerName) return replace(`its container is called ${container.name}`);
  if (container.state === 'exited' && !cannotStart) return { how: 'resume', reason: 'it is stopped' };
  const reason = cannotStart ?? unhealthyReason(state);
  return reason ? replace(reason) : undefined;
}

function before({ container, health }: EnvironmentState): ContainerBefore | null {
  if (!container) return null;
  const { id, name, restartPolicy, state } = container;
  const up = ['running', 'restarting', 'paused'].includes(state);
  return { id, name, restartPolicy, up, answered: health?.status === 200 };
}

export function planChoice({ active, prodTag }: Observation, target: SwitchTarget): Choice {
  return {
    from: { active, prodTag: prodTag ?? null },
    to: { active: target.active, prodTag: target.prodTag ?? null },
    fetch: (target.prodTag && target.fetch) || null,
    images: target.images,
    waitSeconds: null,
  };
}

/** The whole switch: what is wanted starts first, what is not stops after that, .env changes last. */
export function planSwitch(
  { observed, services, containers }: Pick<EngineSnapshot, 'observed' | 'services' | 'containers'>,
  target: SwitchTarget,
  dependencies: readonly Dependency[] = [],
): SwitchData {
  const wanted = environmentsOf(target.active);
  const starts = wanted.flatMap((name): StartData[] => {
    const state = observed.environments[name];
    const old = before(state);
    const keepsImage = name === 'dev' && target.keepsDev && old?.up;
    const how = planStart(state, keepsImage ? undefined : target.imageIds[name]);
    const { containerName } = state;
    const restartPolicy = services[name].restart;
    const next = how?.how === 'resume' ? old!.id : null;
    return how ? [{ environment: name, ...how, containerName, restartPolicy, old, next }] : [];
  });
  const stops = ENVIRONMENTS.filter((name) => !wanted.includes(name)).flatMap((name) => {
    const old = before(observed.environments[name]);
    // It runs, or would again after a restart of the engine.
    return old && (old.up || old.restartPolicy !== 'no') ? [{ environment: name, old }] : [];
  });
  return {
    ...planChoice(observed, target),
    ...{ dependencies: [...dependencies], starts, stops, containers: containers.map(({ id }) => id) },
  };
}
