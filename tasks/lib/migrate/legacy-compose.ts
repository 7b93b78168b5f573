// The older setup's compose file: where it is, what it says, and commands on it. Variables of ours and of the
// shell stay out, so that it means the same now and at a rollback.
import { realpath, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { type Command, probe } from '../command.ts';
import { docker } from '../docker/client.ts';
import { EXIT, TaskError } from '../errors.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import type { Project } from '../project.ts';
import type { Shape } from './legacy.ts';

/** What of a Legacy the commands need. */
export interface ComposeHandle {
  project: string | undefined;
  composeFiles: readonly string[];
  directory: string;
}

const ENVIRONMENT = { COMPOSE_FILE: undefined, COMPOSE_PROFILES: undefined, COMPOSE_PROJECT_NAME: undefined };

export function legacyCommand(handle: ComposeHandle, ...argv: string[]): Command {
  return docker(
    'compose',
    ...(handle.project ? ['--project-name', handle.project] : []),
    ...['--project-directory', handle.directory],
    ...handle.composeFiles.flatMap((file) => ['--file', file]),
    ...argv,
  );
}

export const legacyOptions = (handle: ComposeHandle) => ({ cwd: handle.directory, env: ENVIRONMENT });

/** The compose files that lie where they are known to lie, with symbolic links resolved, each once. */
export async function findComposeFiles(project: Project, description: LegacyDescription): Promise<string[]> {
  const candidates = description.places.flatMap((place) =>
    description.compose_files.map((name) => join(resolve(project.root, place), name)),
  );
  const found = await Promise.all(candidates.map((path) => realpath(path).catch(() => undefined)));
  return [...new Set(found.filter((path) => path !== undefined))];
}

/** `--from`: a compose file, or the folder that it lies in. @throws TaskError (exit 2) if there is none */
export async function composeFileFrom(description: LegacyDescription, from: string): Promise<string> {
  for (const path of [...description.compose_files.map((name) => join(from, name)), from]) {
    const found = await stat(path).catch(() => undefined);
    if (found?.isFile()) return realpath(path);
  }
  throw new TaskError(`There is no compose file at ${from}`, {
    code: 'no-compose-file',
    exitCode: EXIT.usage,
    hint: `give the file itself, or the folder with ${description.compose_files.join(' or ')}`,
  });
}

export interface ResolvedCompose {
  name: string;
  services: Record<string, { environment: Record<string, string> } & Shape>;
  /** Network name → its subnets. */
  networks: Record<string, string[]>;
}

/** @throws TaskError (unknown shape) with compose's own words if it cannot be read */
export async function resolveCompose(handle: ComposeHandle): Promise<ResolvedCompose> {
  const answer = await probe(legacyCommand(handle, 'config', '--format', 'json'), legacyOptions(handle));
  if (!answer.ok) {
    throw new TaskError(`Cannot read ${handle.composeFiles.join(', ')}: ${answer.stderr.trim()}`, {
      code: 'unknown-shape',
      hint: 'repair it, or name another one: --from FILE; nothing was changed',
    });
  }
  const parsed = (await composeSchema()).parse(JSON.parse(answer.stdout.replaceAll('$$', '$')));
  const names = (kind: 'volumes' | 'networks', key: string) => parsed[kind][key]?.name ?? key;
  const services = Object.entries(parsed.services).map(([name, service]) => [
    name,
    {
      image: service.image || `${parsed.name}-${name}`,
      environment: service.environment,
      mounts: service.volumes.map(({ type, source, target, read_only }) => ({
        type,
        source: type === 'volume' ? names('volumes', source) : source,
        target,
        isReadOnly: read_only,
      })),
      ports: service.ports.flatMap(({ published }) => (published ? [published] : [])),
      networks: Object.keys(service.networks).map((key) => names('networks', key)),
    },
  ]);
  const networks = Object.entries(parsed.networks).map(([key, network]) => [
    names('networks', key),
    network.ipam.config.flatMap(({ subnet }) => (subnet ? [subnet] : [])),
  ]);
  return {
    name: parsed.name,
    services: Object.fromEntries(services),
    networks: Object.fromEntries(networks),
  };
}

async function composeSchema() {
  const { z } = await import('#zod');
  const mount = z.object({
    type: z.string(),
    source: z.string().default(''),
    target: z.string(),
    read_only: z.boolean().default(false),
  });
  const service = z.object({
    image: z.string().default(''),
    environment: z
      .record(z.string(), z.string().nullable())
      .nullish()
      .transform((found) =>
        Object.fromEntries(Object.entries(found ?? {}).map(([name, value]) => [name, value ?? ''])),
      ),
    volumes: z.array(mount).default([]),
    ports: z.array(z.object({ published: z.coerce.number().optional() })).default([]),
    networks: z.record(z.string(), z.unknown()).default({}),
  });
  const named = z.object({ name: z.string().optional() });
  const ipam = z.object({ config: z.array(z.object({ subnet: z.string().optional() })).default([]) });
  return z.object({
    name: z.string(),
    services: z.record(z.string(), service),
    volumes: z.record(z.string(), named).default({}),
    networks: z.record(z.string(), named.extend({ ipam: ipam.prefault({}) })).default({}),
  });
}

/** The handle of compose files that lie at absolute paths. */
export function composeHandle(files: readonly string[], project?: string, directory?: string): ComposeHandle {
  const [first = '/'] = files;
  return { project, composeFiles: files.filter(isAbsolute), directory: directory ?? dirname(first) };
}
