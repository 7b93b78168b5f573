// The compose files in the form that the tasks hand to compose, on stdin: nothing in it depends on this
// machine's paths, so that it works the same on another machine's engine.
//
// Three things differ from the files. Configs and secrets that come from files are copied into the container
// when it is made (compose can copy only into a writable root file system, and would mount files from the
// client's disk): a running container keeps what it was started with. Each service carries a digest of its part
// of the model and of those files, so that a change is seen without asking compose. And containers get their
// name by us after they were made: compose can then make the next one while the present one still runs (see
// switch/successor.ts).
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { usageError } from '../errors.ts';
import type { Project } from '../project.ts';
import { resolvedConfig } from './compose-config.ts';
import { type ComposeService, parseResolved, parseServices } from './compose-schema.ts';

/** A file that is put into a container before it starts. */
export interface InjectedFile {
  /** Its name in the compose file. */
  source: string;
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

interface Source {
  file?: string;
  content?: string;
  environment?: string;
}

interface Reference {
  source: string;
  target?: string;
  mode?: string | number;
}

interface RawService {
  container_name?: string;
  configs?: Reference[];
  secrets?: Reference[];
  labels?: Record<string, string>;
  volumes?: { type: string; target: string; source?: string }[];
}

interface Raw {
  services: Record<string, RawService>;
  configs?: Record<string, Source>;
  secrets?: Record<string, Source>;
}

/** @throws TaskError (exit 2) when a compose file or a file that it names cannot be read */
export async function composeModel(project: Project, tag: string | undefined): Promise<ComposeModel> {
  const resolved = await resolvedConfig(project, tag);
  const services = await parseServices(project, resolved);
  const raw = parseResolved(resolved) as Raw;
  const files: ComposeModel['files'] = {};
  const digests: ComposeModel['digests'] = {};
  for (const [name, service] of Object.entries(raw.services)) {
    const configs = await injectedFiles(service.configs, raw.configs, false);
    const secrets = await injectedFiles(service.secrets, raw.secrets, true);
    files[name] = [...configs, ...secrets];
    addFolders(service, files[name]);
    digests[name] = digest(service, configs);
    service.labels = { ...service.labels, [DIGEST_LABEL]: digests[name] };
  }
  delete raw.configs;
  delete raw.secrets;
  return { services, files, digests, input: JSON.stringify(raw).replaceAll('$', '$$$$') };
}

/** Gives the service a volume for each folder that files go to, and takes out what compose would do itself. */
function addFolders(service: RawService, files: readonly InjectedFile[]): void {
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
function digest(service: RawService, files: readonly InjectedFile[]): string {
  const hash = createHash('sha256').update(JSON.stringify(service));
  for (const { target, content } of files) hash.update(`${target}\0${content.length}\0`).update(content);
  return hash.digest('hex');
}

async function injectedFiles(
  references: readonly Reference[] = [],
  sources: Record<string, Source> = {},
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
      return { source, secret, target: path, content, mode: bits };
    }),
  );
}

async function contentOf(name: string, source: Source): Promise<Buffer> {
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
