// The services of a compose file as data of ours: the few things that a switch plans and checks with.
import type { Project } from '../project.ts';
import { parseDuration } from './compose-duration.ts';

export interface PublishedPort {
  published: number;
  target: number;
  /** The engine's address it is bound to; empty: all. */
  address: string;
}

export interface ComposeService {
  image: string;
  container: string;
  /** Published host ports. */
  ports: number[];
  publishes: PublishedPort[];
  hasBuild: boolean;
  environment: Record<string, string>;
  /** `uid[:gid]` or a name, as written; undefined: the image decides. */
  user: string | undefined;
  restart: string;
  binds: { source: string; target: string }[];
  /** Bytes; 0: not said. */
  memory: { limit: number; reservation: number };
  /** Milliseconds; undefined: the image decides. */
  health: {
    interval: number | undefined;
    timeout: number | undefined;
    startInterval: number | undefined;
    startPeriod: number | undefined;
  };
  /** Milliseconds that it may take to stop. */
  stopGrace: number;
}

async function serviceSchema() {
  const { z } = await import('#zod');
  const bytes = z.coerce.number().default(0);
  const duration = z.string().optional().transform(parseDuration);
  const resources = z.object({ memory: bytes }).prefault({});
  return z.object({
    image: z.string().default(''),
    container_name: z.string().optional(),
    build: z.unknown().optional(),
    user: z.string().optional(),
    restart: z.string().default('no'),
    stop_grace_period: z.string().default('10s').transform(parseDuration),
    environment: z.record(z.string(), z.string().nullable()).nullish(),
    ports: z
      .array(
        z.object({
          published: z.coerce.number().optional(),
          target: z.number(),
          host_ip: z.string().default(''),
        }),
      )
      .default([]),
    volumes: z
      .array(z.object({ type: z.string(), source: z.string().default(''), target: z.string() }))
      .default([]),
    deploy: z
      .object({ resources: z.object({ limits: resources, reservations: resources }).partial().prefault({}) })
      .prefault({}),
    healthcheck: z
      .object({ interval: duration, timeout: duration, start_interval: duration, start_period: duration })
      .partial()
      .prefault({}),
  });
}

/** Compose writes a literal `$` as `$$` in what it resolved. */
export function parseResolved(resolved: string): unknown {
  return JSON.parse(resolved.replaceAll('$$', '$'));
}

export async function parseServices(
  project: Project,
  resolved: string,
): Promise<Record<string, ComposeService>> {
  const [{ z }, service] = await Promise.all([import('#zod'), serviceSchema()]);
  const schema = z.object({ services: z.record(z.string(), service) });
  const { services } = schema.parse(parseResolved(resolved));
  return Object.fromEntries(
    Object.entries(services).map(([name, found]): [string, ComposeService] => {
      const publishes = found.ports.flatMap(({ published, target, host_ip: address }) =>
        published === undefined ? [] : [{ published, target, address }],
      );
      const { limits, reservations } = found.deploy.resources;
      const { interval, timeout, start_interval, start_period } = found.healthcheck;
      return [
        name,
        {
          image: found.image,
          container: found.container_name ?? `${project.project.name}-${name}-1`,
          ports: publishes.map(({ published }) => published),
          publishes,
          hasBuild: found.build !== undefined,
          environment: withoutNulls(found.environment ?? {}),
          user: found.user,
          restart: found.restart,
          binds: found.volumes.filter(({ type }) => type === 'bind'),
          memory: { limit: limits?.memory ?? 0, reservation: reservations?.memory ?? 0 },
          health: { interval, timeout, startInterval: start_interval, startPeriod: start_period },
          stopGrace: found.stop_grace_period ?? 10_000,
        },
      ];
    }),
  );
}

function withoutNulls(environment: Record<string, string | null>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) => (value === null ? [] : [[name, value]])),
  );
}
