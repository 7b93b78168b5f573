// The older single-service setup, really there: its own compose file, image, network, volume and data, under
// names of its own, so that tests of the migration run beside each other.
import { createHash, randomBytes } from 'node:crypto';
import { chmod, lstat, mkdir, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { queryHealth } from '../../tasks/lib/docker/health.ts';
import { ensureProgram } from '../programs.ts';
import { docker, execute } from './processes.ts';
import { type TestProject, tinyProject } from './project.ts';
import { tinyBase } from './tiny-base.ts';

const SOURCE = fileURLToPath(new URL('rag-mcp', import.meta.url));

export interface LegacyOptions {
  modelsMegabytes?: number;
  /** On the port of dev, open to the network, its data in a place of its own, named by a symbolic link, not for all. */
  isMoved?: boolean;
  /** False leaves the release to the migration. */
  isReleased?: boolean;
}

/** With what a careless reader of .env would cut or replace. */
export const TOKEN = 'old-secret#to$ken-4711';

export class LegacySetup {
  readonly project: TestProject;
  readonly id: string;
  readonly directory: string;
  readonly service: string;
  readonly image: string;
  readonly volume: string;
  readonly composeFile: string;
  data = '';
  mounted = '';
  port = 0;

  constructor(project: TestProject) {
    this.project = project;
    this.id = `${project.name}-old`;
    this.directory = join(project.directory, 'old');
    this.service = `rag-mcp-${project.name}`;
    this.image = `${this.service}:latest`;
    this.volume = `${this.id}_${project.name}-rag-mcp-models`;
    this.composeFile = join(this.directory, 'docker-compose.mcp.yml');
  }

  compose(...argv: string[]): Promise<string> {
    return docker('compose', '--file', this.composeFile, ...argv);
  }

  async facts(): Promise<unknown> {
    return (await this.ask('/facts')).body;
  }

  async health(): Promise<Record<string, unknown>> {
    return (await this.ask('/health')).body;
  }

  async isAnswering(): Promise<void> {
    for (let attempt = 0; attempt < 200; attempt += 1) {
      if (await this.health().catch(() => undefined)) return;
      await sleep(100);
    }
    throw new Error(await docker('logs', this.service));
  }

  /** Not by fetch, which may never settle while the service starts. */
  private async ask(path: string) {
    const answer = await queryHealth(`http://127.0.0.1:${this.port}${path}`, 5000);
    if (answer.status !== 200) throw new Error(`${path}: ${answer.error ?? answer.status}`);
    return answer;
  }

  /** Everything that going back must bring back: files with owner and mode, what the engine has, .env, configs. */
  async snapshot(): Promise<Record<string, unknown>> {
    const { project } = this;
    return {
      data: await treeOf(this.data),
      mounted: await readlink(this.mounted).catch(() => 'no link'),
      old: (await readdir(this.directory)).sort(),
      compose: await readFile(this.composeFile, 'utf8').catch(() => 'gone'),
      ...(await this.engineObjects()),
      env: await project.read('.env'),
      configs: await treeOf(join(project.root, 'configs'), 'without times'),
      status: await project.git('status', '--porcelain'),
    };
  }

  private async engineObjects(): Promise<Record<string, string>> {
    const [old, own] = [this.id, this.project.name].map((name) => `label=com.docker.compose.project=${name}`);
    const container = '{{.Name}} {{.State.Status}} {{.Config.Image}} {{json .NetworkSettings.Ports}}';
    return {
      containers: await inspected('container', container, old!),
      networks: await inspected('network', '{{.Name}} {{.Driver}} {{json .IPAM.Config}}', old!),
      volumes: await inspected('volume', '{{.Name}}', old!),
      newContainers: await inspected('container', '{{.Id}}', own!),
      newNetworks: await inspected('network', '{{.Id}}', own!),
      newVolumes: await inspected('volume', '{{.Name}}', own!),
    };
  }

  async remove(): Promise<void> {
    const old = `label=com.docker.compose.project=${this.id}`;
    for (const filter of [old, `volume=${this.volume}`, `label=release-flow.backup=${this.project.name}`])
      await removeAll('container', filter, '--force', '--volumes');
    for (const kind of ['network', 'volume']) await removeAll(kind, old);
    await docker('image', 'rm', '--force', this.image).catch(() => '');
  }
}

async function listed(kind: string, filter: string): Promise<string[]> {
  const all = kind === 'container' ? ['--all'] : [];
  const ids = await docker(kind, 'ls', '--quiet', ...all, '--filter', filter);
  return ids.split('\n').filter(Boolean);
}

/** One line for each, sorted. Asked one by one: the list still has a container running that has just been stopped. */
async function inspected(kind: string, format: string, filter: string): Promise<string> {
  const ids = await listed(kind, filter);
  if (ids.length === 0) return '';
  return (await docker(kind, 'inspect', '--format', format, ...ids)).split('\n').sort().join('\n');
}

async function removeAll(kind: string, filter: string, ...options: string[]): Promise<void> {
  const ids = await listed(kind, filter);
  if (ids.length > 0) await docker(kind, 'rm', ...options, ...ids);
}

/** Where a volume's files are on this machine: to look at them or to write some no container has to start. */
export const placeOf = (volume: string) => docker('volume', 'inspect', '--format', '{{.Mountpoint}}', volume);

/** Every file with what makes it what it is: content, owner, mode, time. */
export async function treeOf(
  folder: string,
  times: 'with times' | 'without times' = 'with times',
): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const visit = async (path: Buffer, name: string): Promise<void> => {
    const stat = await lstat(path).catch(() => undefined);
    if (!stat) return;
    const head = `${stat.uid}:${stat.gid} ${(stat.mode & 0o7777).toString(8)}`;
    if (stat.isDirectory()) {
      found[`${name}/`] = head;
      for (const entry of await readdir(path, { encoding: 'buffer' }))
        await visit(Buffer.concat([path, Buffer.from('/'), entry]), `${name}/${entry.toString('latin1')}`);
    } else if (stat.isSymbolicLink()) found[name] = `${head} → ${await readlink(path)}`;
    else {
      const hash = createHash('sha256')
        .update(await readFile(path))
        .digest('hex')
        .slice(0, 16);
      found[name] = `${head} ${stat.size} ${times === 'with times' ? stat.mtimeMs : ''} ${hash}`;
    }
  };
  await visit(Buffer.from(folder), '');
  return found;
}

const OLD_CONFIG = {
  chunk_size: 900,
  chunk_overlap: 100,
  embedding_model: 'all-MiniLM-L6-v2',
  automatic_learning: { enabled: true, mode: 'aggressive' },
  metrics: { retention_days: 3650 },
  top_k: 5,
  unheard_of: { deep: true },
};

/** The setup with its service running, described in the project's release.toml, on a machine that is set up. */
export async function legacySetup(
  t: TestContext,
  project: TestProject,
  { modelsMegabytes = 1, isMoved = false }: LegacyOptions = {},
): Promise<LegacySetup> {
  const setup = new LegacySetup(project);
  t.after(() => setup.remove());
  setup.port = project.ports[isMoved ? 'dev' : 'prod'];
  setup.data = join(project.directory, isMoved ? 'pi-rag-data' : 'data');
  setup.mounted = isMoved ? join(project.directory, 'link-to-data') : setup.data;
  await rm(setup.data, { recursive: true, force: true });
  await mkdir(setup.data);
  await mkdir(join(setup.directory, 'configs'), { recursive: true });
  await execute(await ensureProgram('python3'), [join(SOURCE, 'write-data.py'), setup.data]);
  await execute('chown', ['-hR', '0:0', setup.data]);
  await chmod(setup.data, isMoved ? 0o750 : 0o755);
  if (isMoved) await symlink(setup.data, setup.mounted);
  await writeFile(join(setup.directory, 'configs/rag_config.json'), JSON.stringify(OLD_CONFIG, null, 2));
  await writeFile(join(setup.directory, '.env'), `RAG_API_TOKEN='${TOKEN}'\n`);
  await writeFile(setup.composeFile, await composeText(setup, isMoved ? '0.0.0.0' : '127.0.0.1'));
  const base = `NODE_IMAGE=${process.env.TEST_BASE_IMAGE ?? 'synapse-node:24'}`;
  await docker('build', '--quiet', '--build-arg', base, '--tag', setup.image, SOURCE);
  await project.edit('configs/release.toml', (text) =>
    text.replace(/^(service|image) = "rag-mcp"$/gm, `$1 = "${setup.service}"`),
  );
  await project.commit('chore: describe the older setup');
  await setup.compose('up', '--detach', '--quiet-pull');
  await fillModels(setup, modelsMegabytes);
  await setup.isAnswering();
  const ready = await project.task('setup', ['--yes']);
  if (ready.code !== 0) throw new Error(ready.stderr);
  return setup;
}

async function composeText(setup: LegacySetup, address: string): Promise<string> {
  const subnet = /_SUBNET=(.*)/.exec(await setup.project.read('.env'))?.[1];
  // biome-ignore lint/suspicious/noTemplateCurlyInString: compose replaces it
  const environment = { RAG_API_TOKEN: '${RAG_API_TOKEN}', RAG_LOG_LEVEL: 'WARNING', RAG_PORT: '8002' };
  const volume = `${setup.project.name}-rag-mcp-models`;
  return `name: ${setup.id}
services:
  ${setup.service}:
    image: ${setup.image}
    container_name: ${setup.service}
    ports: ["${address}:${setup.port}:8002"]
    restart: "no"
    environment: ${JSON.stringify(environment)}
    volumes:
      - ${setup.mounted}:/app/data
      - ${volume}:/app/models
      - ./configs:/app/configs:ro
    networks: [rag-net]
networks:
  rag-net: { ipam: { config: [{ subnet: "${subnet}" }] } }
volumes:
  ${volume}:
`;
}

/** Files that stand for GGUF models; random, so that nothing makes them smaller. */
async function fillModels(setup: LegacySetup, megabytes: number): Promise<void> {
  const models = await placeOf(setup.volume);
  await writeFile(join(models, 'model.gguf'), randomBytes(megabytes << 20));
  await mkdir(join(models, 'sub dir'));
  await writeFile(join(models, 'sub dir/small.gguf'), 'GGUF');
}

// The same before a project of the tiny app.

export const MIGRATE = `
[migrate]
service = "rag-mcp"
image = "rag-mcp"
data_targets = ["/app/data"]
models_targets = ["/app/models"]
models_volume = "tiny-models"
models_variable = "MODELS_VOLUME"
config_files = ["configs/rag_config.json"]
variable_prefix = "RAG_"

[migrate.settings]
api_token = { variable = "TOKEN" }
log_level = { variable = "LOG_LEVEL" }
`;

/** What both services get, beside what the compose file has. */
const MOUNTS = `
    user: "\${TINY_UID:-1000}:\${TINY_GID:-1000}"
    volumes:
      - { type: bind, source: "\${TINY_DATA_DIR:-/nowhere}", target: /app/data }
      - { type: volume, source: tiny-models, target: /app/models }
`;

export async function tinyLegacy(t: TestContext, options: LegacyOptions = {}): Promise<LegacySetup> {
  const project = await tinyProject(t);
  // The program that copies runs in the base image, by its node.
  const [base, node] = [await tinyBase(), process.env.TEST_BASE_IMAGE ?? 'synapse-node:24'];
  await project.edit('Dockerfile', (text) => text.replace(/^FROM .*$/m, `FROM ${base}`));
  // With this file in its data the new service does not start.
  await project.edit('serve', (text) =>
    text.replace(/^read -r/m, '[ ! -e /app/data/poison ] || exit 3\nread -r'),
  );
  await project.edit('.env', (text) =>
    [
      text.trimEnd().replace(`TINY_BASE_IMAGE=${base}`, `TINY_BASE_IMAGE=${node}`),
      `TINY_DATA_DIR=${join(project.directory, 'data')}`,
      `TINY_BACKUP_DIR=${join(project.directory, 'backups')}`,
      '# a line of the user\n',
    ].join('\n'),
  );
  await project.edit('compose/docker-compose.yml', (text) =>
    text
      .replaceAll('"127.0.0.1:', `"\${TINY_BIND_ADDRESS:-127.0.0.1}:`)
      .replace(/^ {4}restart: .*$/gm, (line) => `${line}${MOUNTS.trimEnd()}`)
      .concat(`\nvolumes:\n  tiny-models: { name: "\${TINY_MODELS_VOLUME:-${project.name}-models}" }\n`),
  );
  await project.edit(
    'configs/release.toml',
    (text) => text.replace(/^\[backup\]\n/m, '[backup]\nkeep = { last = 2 }\n') + MIGRATE,
  );
  const setup = await legacySetup(t, project, options);
  if (options.isReleased !== false) {
    const released = await project.task('release', ['patch', '--yes']);
    if (released.code !== 0) throw new Error(released.stderr);
  }
  return setup;
}
