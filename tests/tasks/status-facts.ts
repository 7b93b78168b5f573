// What status saw, for situations that no engine produces on request: both environments of this very project are well,
// but for what a test changes.

import type { Container } from '../../tasks/lib/docker/objects.ts';
import type { HistoryEntry } from '../../tasks/lib/history.ts';
import { type EnvironmentName, loadProject, type Project } from '../../tasks/lib/project.ts';
import type { StatusFacts } from '../../tasks/lib/status/facts.ts';
import { HOUR, type SampleLog } from '../../tasks/lib/uptime.ts';
import { REPOSITORY } from './project.ts';

export const NOW = new Date('2026-11-24T21:30:00Z');
export const before = (seconds: number) => new Date(NOW.getTime() - seconds * 1000).toISOString();
export const DIGEST = `sha256:${'1573d20e8b81cdec'.repeat(4)}`;

/** This project as its release.toml says, with `dotenv` beside both active and prod at v1.3.0. */
export function statusProject(dotenv: Record<string, string> = {}): Promise<Project> {
  const variables = { SYNAPSE_ACTIVE_ENV: 'both', SYNAPSE_PROD_TAG: 'v1.3.0', ...dotenv };
  return loadProject(REPOSITORY, async () => variables);
}

interface Situation {
  /** Null: there is none. */
  container?: Partial<Container> | null;
  /** Of its answer to /health. */
  status?: number;
  body?: Record<string, unknown>;
  memory?: { bytes: number; limit: number };
  outdated?: boolean;
}

export function runningContainer(name: EnvironmentName, called = `synapse-${name}`): Container {
  return {
    ...{ id: name, name: called, service: `synapse-${name}`, state: 'running', health: 'healthy' },
    ...{ image: `synapse:${name === 'dev' ? 'latest' : 'v1.3.0'}`, imageId: DIGEST, restarts: 0 },
    ...{ startedAt: before(273_600), memoryLimit: 3e9, labels: {} },
  } as Container;
}

function environment(name: EnvironmentName, { container, status = 200, body, outdated }: Situation) {
  const port = name === 'dev' ? 8003 : 8002;
  const found = { ...runningContainer(name), ...container };
  const answer = {
    ...{ version: '1.3.0', revision: 'a5198f20a413e214e862a99d36efd8d2a9c13d5d' },
    ...{ logLevel: name === 'dev' ? 'DEBUG' : 'INFO', automaticLearning: 'moderate', ...body },
  };
  return {
    ...{ containerName: `synapse-${name}`, url: `http://127.0.0.1:${port}`, outdated: outdated ?? false },
    container: container === null ? undefined : found,
    health: container === null || found.state !== 'running' ? undefined : { status, body: answer },
  };
}

export type Situations = Partial<Record<EnvironmentName, Situation>> & Partial<StatusFacts>;

export function statusFacts({ dev = {}, prod = {}, ...change }: Situations = {}): StatusFacts {
  const environments = { dev: environment('dev', dev), prod: environment('prod', prod) };
  const usage = ({ bytes, limit } = { bytes: 71e6, limit: 3e9 }) => {
    return { memory: bytes, limit, peak: 128e6, cpu: 0, system: 0, cpus: 4 };
  };
  return {
    at: NOW,
    observation: { active: 'both', prodTag: 'v1.3.0', environments },
    engineError: undefined,
    latest: DIGEST,
    containers: Object.values(environments).flatMap(({ container }) => container ?? []),
    usages: {
      ...(dev.container === null ? {} : { dev: usage(dev.memory) }),
      ...(prod.container === null ? {} : { prod: usage(prod.memory) }),
    },
    cpu: { dev: 0.2, prod: 1.4 },
    releases: [{ name: 'v1.3.0', version: '1.3.0', commit: '', digests: [DIGEST] }],
    history: [],
    samples: { hours: [], samples: [] },
    task: undefined,
    interrupted: [],
    dataBytes: 48e6,
    backup: {
      report: { at: before(25_200), name: 'x.tar.zst', ageSeconds: 25_200, overdue: false, failure: null },
      problem: undefined,
    },
    ...change,
  } as StatusFacts;
}

export function historyEntry(task: string, secondsAgo: number, change: Partial<HistoryEntry> = {}) {
  const entry = { at: before(secondsAgo), task, who: 'me', from: null, to: null, seconds: 3.8 };
  return { ...entry, outcome: 'done' as const, ...change };
}

/** Twenty-two days, measured but for a night; ten bad minutes on the twentieth of November, seven just now. */
export function monthOfSamples(): SampleLog {
  const hours = Array.from({ length: 22 * 24 }, (_, index) => {
    const time = Math.floor(NOW.getTime() / HOUR) * HOUR - (index + 1) * HOUR;
    const hour = new Date(time).toISOString().slice(0, 13);
    const down = hour === '2026-11-20T14' ? 600 : hour === '2026-11-24T09' ? 420 : 0;
    const prod = Math.round((70 + 25 * Math.sin(index / 11) + (index % 5)) * 1e6);
    return { hour, up: 3600 - down, down, off: 0, memory: { prod, dev: 45e6 + (index % 7) * 1e6 } };
  });
  return { hours: hours.filter(({ hour }) => !/2026-11-12T0[0-6]/.test(hour)), samples: [] };
}
