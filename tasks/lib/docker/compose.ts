// Calling `docker compose` for this project, and the one reader of what it answers. What runs is decided by release.toml,
// .env and the caller, never by variables that somebody's shell happens to export (those would beat --env-file).
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import { z } from 'zod';
import { type Command, probe, read, run } from '../command.ts';
import { dotenvFiles } from '../dotenv.ts';
import { TaskError, usageError } from '../errors.ts';
import {
  dataDirectory,
  ENVIRONMENTS,
  type EnvironmentName,
  type Project,
  portOf,
  variableName,
} from '../project.ts';
import { docker } from './engine.ts';

/** What compose interpolates beyond .env; `tag` is the release that prod runs. */
function composeEnvironment(project: Project, tag: string | undefined): Record<string, string | undefined> {
  const foreign = Object.keys(process.env).filter((name) => name.startsWith(variableName(project, '')));
  return {
    ...Object.fromEntries(foreign.map((name) => [name, undefined])),
    COMPOSE_FILE: undefined,
    COMPOSE_PROFILES: undefined,
    [variableName(project, 'IMAGE')]: project.image.name,
    [variableName(project, 'DATA_DIR')]: dataDirectory(project),
    [variableName(project, 'DEV_PORT')]: String(portOf(project, 'dev')),
    [variableName(project, 'PROD_PORT')]: String(portOf(project, 'prod')),
    // Empty and not unset: what .env says of another engine must not show through.
    [variableName(project, 'PROD_TAG')]: tag ?? '',
  };
}

function composeCommand(project: Project, ...argv: string[]): Command {
  return docker(
    'compose',
    '--project-name',
    project.project.name,
    ...dotenvFiles(project.root).flatMap((file) => ['--env-file', file]),
    ...project.project.compose.flatMap((file) => ['--file', join(project.root, file)]),
    ...argv,
  );
}

/** Compose on a model that is given on stdin (`modelInput`): it needs no file and no variable of ours. */
export function modelCommand(project: Project, ...argv: string[]): Command {
  return docker('compose', '--project-name', project.project.name, '--file', '-', ...argv);
}

export function environmentOfService(project: Project, service: string): EnvironmentName | undefined {
  return ENVIRONMENTS.find((name) => project.environments[name].service === service);
}

/** @throws TaskError when a Compose v2 is missing */
export async function verifyCompose(): Promise<void> {
  const answer = await probe(docker('compose', 'version', '--short'));
  if (answer.ok && /^v?[2-9]/.test(answer.stdout)) return;
  throw new TaskError('Docker Compose v2 is missing', {
    code: 'compose-missing',
    hint: 'npm run setup installs it on Debian and Raspberry Pi OS; elsewhere see https://docs.docker.com/compose/install/',
  });
}

// What the compose files say once everything is resolved, and whether release.toml speaks of the same.

/** The compose files with everything resolved. @throws TaskError (exit 2) with compose's own words */
export async function resolvedModel(project: Project, tag: string | undefined): Promise<ResolvedModel> {
  const options = { env: composeEnvironment(project, tag) };
  const answer = await probe(composeCommand(project, 'config', '--format', 'json'), options);
  if (!answer.ok) {
    throw usageError(`The compose file is not valid: ${answer.stderr.trim()}`, {
      code: 'compose-invalid',
      hint: `see: ${project.project.compose.join(', ')} and .env`,
    });
  }
  return parseResolved(answer.stdout);
}

/** Service → the hash that compose gives its container when somebody runs it by hand on the same files. */
export async function composeHashes(
  project: Project,
  tag: string | undefined,
): Promise<Record<string, string>> {
  const options = { env: composeEnvironment(project, tag) };
  const answer = await read(composeCommand(project, 'config', '--hash', '*'), options);
  return Object.fromEntries(answer.split('\n').map((line) => line.split(' ') as [string, string]));
}

/** release.toml and the compose file must speak of the same services and ports. @throws TaskError (exit 2) */
export function verifyServices(project: Project, services: Record<string, ComposeService>): void {
  const refuse = (message: string, hint: string) => usageError(message, { code: 'config-invalid', hint });
  for (const name of ENVIRONMENTS) {
    const { service } = project.environments[name];
    const found = services[service];
    const port = portOf(project, name);
    if (!found) {
      throw refuse(
        `configs/release.toml: environments.${name}.service is "${service}", which no compose file has`,
        `services: ${Object.keys(services).join(', ')}`,
      );
    }
    if (!found.ports.includes(port)) {
      const variable = variableName(project, `${name.toUpperCase()}_PORT`);
      throw refuse(
        `Service ${service} publishes port ${found.ports.join(', ') || '(none)'}, expected ${port}`,
        `publish "\${${variable}}" in the compose file, or correct environments.${name}.port`,
      );
    }
    if (name === 'prod' && found.hasBuild) {
      const hint = "remove it: compose would build working-tree code under a released version's name";
      throw refuse(`Service ${service} has a \`build:\``, hint);
    }
  }
}

// Compose's resolved model. What is looked at is checked; the rest is passed on as it is.

const text = z.string().optional();
const number = z.union([z.string(), z.number()]).optional();
const named = z.looseObject({ name: text });
const sourceSchema = z.looseObject({ file: text, content: text, environment: text });
const reference = z.looseObject({ source: z.string(), target: text, mode: number });
const resources = z.looseObject({ memory: number }).optional();
const serviceSchema = z.looseObject({
  image: text,
  container_name: text,
  user: text,
  restart: text,
  environment: z.record(z.string(), z.string().nullable()).nullish(),
  labels: z.record(z.string(), z.string()).optional(),
  networks: z.record(z.string(), z.unknown()).optional(),
  depends_on: z.record(z.string(), z.looseObject({ condition: z.string() })).optional(),
  configs: z.array(reference).optional(),
  secrets: z.array(reference).optional(),
  deploy: z
    .looseObject({ resources: z.looseObject({ limits: resources, reservations: resources }).optional() })
    .optional(),
  ports: z.array(z.looseObject({ target: z.number(), published: number, host_ip: text })).optional(),
  tmpfs: z.array(z.string()).optional(),
  volumes: z
    .array(
      z.looseObject({
        type: z.string(),
        target: z.string(),
        source: text,
        read_only: z.boolean().optional(),
      }),
    )
    .optional(),
});
const modelSchema = z.looseObject({
  name: z.string(),
  services: z.record(z.string(), serviceSchema),
  networks: z
    .record(
      z.string(),
      named.extend({
        ipam: z.looseObject({ config: z.array(z.looseObject({ subnet: text })).optional() }).optional(),
      }),
    )
    .optional(),
  volumes: z.record(z.string(), named).optional(),
  configs: z.record(z.string(), sourceSchema).optional(),
  secrets: z.record(z.string(), sourceSchema).optional(),
});

export type ResolvedService = z.output<typeof serviceSchema>;
/** The compose files with everything resolved, as compose's own JSON has it. */
export type ResolvedModel = z.output<typeof modelSchema>;

/** Compose writes a literal `$` as `$$` in what it resolved. */
function parseResolved(resolved: string): ResolvedModel {
  const model: unknown = JSON.parse(resolved.replaceAll('$$', '$'));
  modelSchema.parse(model);
  // As it came: digests of it must not depend on the order of the keys above.
  return model as ResolvedModel;
}

/** The model as text for `docker compose --file -`. */
export function modelInput(model: Record<string, unknown>): string {
  return JSON.stringify(model).replaceAll('$', '$$$$');
}

/** The few things of a service that a switch plans and checks with. */
export type ComposeService = ReturnType<typeof describeService>;
export type PublishedPort = ComposeService['publishes'][number];

/** Service → what the tasks look at. */
export function parseServices(model: ResolvedModel): Record<string, ComposeService> {
  const described = Object.entries(model.services).map(([name, service]) => [
    name,
    describeService(`${model.name}-${name}-1`, service),
  ]);
  return Object.fromEntries(described);
}

function describeService(defaultName: string, service: ResolvedService) {
  const publishes = (service.ports ?? [])
    .filter(({ published }) => published !== undefined)
    // The engine's address that a port is bound to; empty: all.
    .map(({ published, target, host_ip: address = '' }) => ({
      published: Number(published),
      target,
      address,
    }));
  const environment = Object.entries(service.environment ?? {}).filter(([, value]) => value !== null);
  const dependencies = Object.entries(service.depends_on ?? {});
  return {
    image: service.image ?? '',
    container: service.container_name ?? defaultName,
    /** Bytes of memory; 0: none. */
    reservation: Number(service.deploy?.resources?.reservations?.memory ?? 0),
    publishes,
    /** Published host ports. */
    ports: publishes.map(({ published }) => published),
    hasBuild: 'build' in service,
    environment: Object.fromEntries(environment) as Record<string, string>,
    /** `uid[:gid]` or a name, as written; undefined: the image decides. */
    user: service.user,
    restart: service.restart ?? 'no',
    binds: (service.volumes ?? []).flatMap(({ type, source = '', target }) =>
      type === 'bind' ? [{ source, target }] : [],
    ),
    /** Service → the condition on which compose would start this one. */
    dependsOn: Object.fromEntries(dependencies.map(([other, { condition }]) => [other, condition])),
  };
}

// The compose files in the form that the tasks hand to compose, on stdin: nothing in it depends on this
// machine's paths, so that it works the same on another machine's engine.
//
// Three things differ from the files. Configs and secrets that come from files are copied into the container
// when it is made (compose can copy only into a writable root file system, and would mount files from the
// client's disk): a running container keeps what it was started with. Each service carries a digest of its part
// of the model and of those files, so that a change is seen without asking compose. And containers get their
// name by us after they were made: compose can then make the next one while the present one still runs (see
// switch/replace.ts).

/** A file that is put into a container before it starts. */
interface InjectedFile {
  secret: boolean;
  /** Absolute path inside the container. */
  target: string;
  content: Buffer;
  mode: number;
}

export interface ComposeModel {
  services: Record<string, ComposeService>;
  /** For `docker compose --file -`. */
  input: string;
  files: Record<string, InjectedFile[]>;
  /** What each service's container has as its `DIGEST_LABEL` when it is up to date. */
  digests: Record<string, string>;
}

/** Where injected files lie; their anonymous volumes are ours and go with the container. */
export const FILES_LABEL = 'release-flow.files';
export const DIGEST_LABEL = 'release-flow.digest';
/** `HOST:PATH` of the checkout that made the container. */
export const CHECKOUT_LABEL = 'release-flow.checkout';
/** Compose's own, of the service as its files say it. */
export const CONFIG_HASH_LABEL = 'com.docker.compose.config-hash';

/** @throws TaskError (exit 2) when a compose file or a file that it names cannot be read */
export async function composeModel(project: Project, tag: string | undefined): Promise<ComposeModel> {
  const model = await resolvedModel(project, tag);
  const services = parseServices(model);
  const files = await takeOutFiles(model);
  const digests: ComposeModel['digests'] = {};
  for (const [name, service] of Object.entries(model.services)) {
    // Only the next container of an environment is made beside the present one, under another name at first.
    if (!environmentOfService(project, name)) service.container_name = services[name]!.container;
    digests[name] = digest(service, files[name] ?? []);
    const checkout = `${hostname()}:${project.root}`;
    service.labels = { ...service.labels, [DIGEST_LABEL]: digests[name], [CHECKOUT_LABEL]: checkout };
  }
  return { services, files, digests, input: modelInput(model) };
}

/**
 * Takes configs and secrets out of a model, and the fixed names of containers: what the services get as files is returned,
 * to be copied into their containers. Each has a volume for every folder that files go to.
 */
export async function takeOutFiles(model: ResolvedModel): Promise<Record<string, InjectedFile[]>> {
  const files: Record<string, InjectedFile[]> = {};
  for (const [name, service] of Object.entries(model.services)) {
    const configs = await injectedFiles(service.configs, model.configs, false);
    const secrets = await injectedFiles(service.secrets, model.secrets, true);
    files[name] = [...configs, ...secrets];
    addFolders(service, files[name]);
  }
  delete model.configs;
  delete model.secrets;
  return files;
}

/** Gives the service a volume for each folder that files go to, and takes out what compose would do itself. */
function addFolders(service: ResolvedService, files: readonly InjectedFile[]): void {
  delete service.container_name;
  delete service.configs;
  delete service.secrets;
  if (files.length === 0) return;
  const folders = [...new Set(files.map(({ target }) => dirname(target)))].sort();
  // A volume is the one place that a container with a read-only root lets files be copied to.
  const volumes = folders.map((target) => ({ type: 'volume', target }));
  const taken = new Set(service.volumes?.map(({ target }) => target));
  service.volumes = [...(service.volumes ?? []), ...volumes.filter(({ target }) => !taken.has(target))];
  service.labels = { ...service.labels, [FILES_LABEL]: folders.join(',') };
}

/** Secrets stay out of it: everybody who may list containers can read it. */
function digest(service: ResolvedService, files: readonly InjectedFile[]): string {
  const hash = createHash('sha256').update(JSON.stringify(service));
  for (const { target, content } of files.filter(({ secret }) => !secret))
    hash.update(`${target}\0${content.length}\0`).update(content);
  return hash.digest('hex');
}

async function injectedFiles(
  references: ResolvedService['configs'] = [],
  sources: ResolvedModel['configs'] = {},
  secret: boolean,
): Promise<InjectedFile[]> {
  return Promise.all(
    references.map(async ({ source, target = source, mode = 0o444 }) => {
      const path = target.startsWith('/') ? target : `${secret ? '/run/secrets/' : '/'}${target}`;
      if (dirname(path) === '/') {
        throw usageError(`The config ${source} has no folder of its own in the container: ${path}`, {
          code: 'compose-invalid',
          hint: `give it one in the compose file, e.g. target: /app/configs/${source}`,
        });
      }
      const content = await contentOf(source, sources[source] ?? {});
      const bits = typeof mode === 'number' ? mode : Number.parseInt(mode, 8);
      return { secret, target: path, content, mode: bits };
    }),
  );
}

async function contentOf(name: string, source: z.output<typeof sourceSchema>): Promise<Buffer> {
  if (source.content !== undefined) return Buffer.from(source.content);
  if (source.environment !== undefined) return Buffer.from(process.env[source.environment] ?? '');
  if (source.file === undefined) throw unreadable(name, 'it names no file and no content');
  return readFile(source.file).catch((error: Error) => {
    throw unreadable(name, error.message);
  });
}

function unreadable(name: string, why: string) {
  return usageError(`The config ${name} of the compose file cannot be read: ${why}`, {
    code: 'compose-invalid',
  });
}

/** Puts files into a container that was made and not started yet. */
export async function copyFilesInto(container: string, files: readonly InjectedFile[]): Promise<void> {
  for (const folder of new Set(files.map(({ target }) => dirname(target)))) {
    const inside = files.filter(({ target }) => dirname(target) === folder);
    await run(docker('cp', '-', `${container}:${folder}`), { input: await tarOf(inside) });
  }
}

/** Owned by root and readable by all: the service must not change what it was configured with. */
async function tarOf(files: readonly InjectedFile[]): Promise<Buffer> {
  const archive = pack();
  for (const { target, content, mode } of files)
    archive.entry({ name: basename(target), mode, uid: 0, gid: 0 }, content);
  archive.finalize();
  return buffer(archive);
}
