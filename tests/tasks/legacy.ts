// The older single-service setup, really there: its own compose file, image, network, volume and data, under
// names of its own, so that tests of the migration run beside each other.
import { createHash, randomBytes } from 'node:crypto';
import {
  cp,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { queryEngine, withEngine } from '../../tasks/lib/docker/engine.ts';
import { queryHealth } from '../../tasks/lib/docker/health.ts';
import { ensureProgram } from '../programs.ts';
import { docker, runProcess } from './processes.ts';
import type { TestProject } from './project.ts';

const SOURCE = fileURLToPath(new URL('rag-mcp', import.meta.url));

export interface LegacyOptions {
  /** Which of the new ports it is on. */
  on?: 'dev' | 'prod';
  modelsMegabytes?: number;
  facts?: number;
  /** Of further data, in one more database. */
  dataMegabytes?: number;
  /** Its data lies where the new service's will, or in a place of its own. */
  data?: 'same' | 'own';
  /** The compose file names a symbolic link to the data. */
  linked?: boolean;
  /** Owner and mode of everything in the data directory. */
  owner?: { uid: number; gid: number; mode: number };
  environment?: Record<string, string>;
  /** That its port listens on; default: this machine alone. */
  address?: string;
  config?: object;
}

export const TOKEN = 'old-secret-token-4711';

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

  /** By the engine's own interface, on one connection: it is asked before and after each scenario. */
  private engineObjects(): Promise<Record<string, string>> {
    const old = { label: [`com.docker.compose.project=${this.id}`] };
    const own = { label: [`com.docker.compose.project=${this.project.name}`] };
    return withEngine(async () => ({
      containers: lines(await inspected(await containersOf(old)), (one) =>
        [
          one.Name.slice(1),
          one.State.Status,
          one.Config.Image,
          JSON.stringify(one.NetworkSettings.Ports),
        ].join(' '),
      ),
      networks: lines(await networksOf(old), ({ Name, Driver, IPAM }) =>
        [Name, Driver, JSON.stringify(IPAM.Config)].join(' '),
      ),
      volumes: lines(await volumesOf(old), ({ Name }) => Name),
      newContainers: lines(await containersOf(own), ({ Id }) => Id),
      newNetworks: lines(await networksOf(own), ({ Id }) => Id),
      newVolumes: lines(await volumesOf(own), ({ Name }) => Name),
    }));
  }

  async remove(): Promise<void> {
    const old = { label: [`com.docker.compose.project=${this.id}`] };
    const programs = { label: [`release-flow.backup=${this.project.name}`] };
    const found = await withEngine(async () => ({
      containers: [
        ...(await containersOf(old)),
        ...(await containersOf({ volume: [this.volume] })),
        ...(await containersOf(programs)),
      ],
      networks: await networksOf(old),
      volumes: await volumesOf(old),
    }));
    const containers = [...new Set(found.containers.map(({ Id }) => Id))];
    if (containers.length > 0) await docker('rm', '--force', '--volumes', ...containers);
    for (const { Id } of found.networks) await docker('network', 'rm', Id);
    for (const { Name } of found.volumes) await docker('volume', 'rm', Name);
    await docker('image', 'rm', '--force', this.image).catch(() => '');
  }
}

interface Inspected {
  Name: string;
  State: { Status: string };
  Config: { Image: string };
  NetworkSettings: { Ports: unknown };
}

interface Network {
  Id: string;
  Name: string;
  Driver: string;
  IPAM: { Config: unknown };
}

type Filters = Record<string, string[]>;

const question = (filters: Filters) => `filters=${encodeURIComponent(JSON.stringify(filters))}`;

const containersOf = async (filters: Filters) =>
  (await queryEngine(`/containers/json?all=1&${question(filters)}`)) as { Id: string }[];

/** Each by itself: for a moment the engine's list still has a container running that it has stopped. */
async function inspected(containers: readonly { Id: string }[]): Promise<Inspected[]> {
  const found: Inspected[] = [];
  for (const { Id } of containers) found.push((await queryEngine(`/containers/${Id}/json`)) as Inspected);
  return found;
}

const networksOf = async (filters: Filters) =>
  (await queryEngine(`/networks?${question(filters)}`)) as Network[];

const volumesOf = async (filters: Filters) =>
  ((await queryEngine(`/volumes?${question(filters)}`)) as { Volumes: { Name: string }[] | null }).Volumes ??
  [];

/** One line for each, sorted: the engine lists in any order. */
const lines = <T>(found: readonly T[], describe: (one: T) => string) => found.map(describe).sort().join('\n');

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

export const DEFAULT_CONFIG = {
  chunk_size: 900,
  chunk_overlap: 100,
  embedding_model: 'all-MiniLM-L6-v2',
  automatic_learning: { enabled: true, mode: 'aggressive' },
  metrics: { retention_days: 3650 },
  top_k: 5,
  unheard_of: { deep: true },
};

/** Describes this setup in the project's release.toml, and puts the change into a commit. */
async function describe(setup: LegacySetup): Promise<void> {
  const { project } = setup;
  await project.edit('configs/release.toml', (text) =>
    text
      .replace(/^service = "rag-mcp"$/m, `service = "${setup.service}"`)
      .replace(/^image = "rag-mcp"$/m, `image = "${setup.service}"`)
      .replace(/^places = .*$/m, 'places = ["../old"]')
      .replace(/^models_volume_suffix = .*$/m, `models_volume_suffix = "${project.name}-rag-mcp-models"`),
  );
  await project.commit('chore: describe the older setup');
}

/** The setup with its service running. */
export async function legacySetup(
  t: TestContext,
  project: TestProject,
  options: LegacyOptions = {},
): Promise<LegacySetup> {
  const setup = new LegacySetup(project);
  t.after(() => setup.remove());
  setup.port = project.ports[options.on ?? 'prod'];
  setup.data =
    options.data === 'own' ? join(project.directory, 'pi-rag-data') : join(project.directory, 'data');
  setup.mounted = options.linked ? join(project.directory, 'link-to-data') : setup.data;
  await rm(setup.data, { recursive: true, force: true });
  await mkdir(setup.data);
  await mkdir(join(setup.directory, 'configs'), { recursive: true });
  await runPython(setup.data, options.facts ?? 200, options.dataMegabytes ?? 0);
  const owner = options.owner ?? { uid: 0, gid: 0, mode: 0o755 };
  await runProcess('chown', ['-hR', `${owner.uid}:${owner.gid}`, setup.data]);
  await runProcess('chmod', [owner.mode.toString(8), setup.data]);
  if (options.linked) await symlink(setup.data, setup.mounted);
  await writeFile(
    join(setup.directory, 'configs/rag_config.json'),
    JSON.stringify(options.config ?? DEFAULT_CONFIG, null, 2),
  );
  await writeFile(join(setup.directory, '.env'), `RAG_API_TOKEN=${TOKEN}\n`);
  await writeFile(setup.composeFile, composeText(setup, await subnetOf(project), options));
  await buildImage(setup);
  await describe(setup);
  await setup.compose('up', '--detach', '--quiet-pull');
  await fillModels(setup, options.modelsMegabytes ?? 1);
  await answers(setup);
  return setup;
}

async function runPython(folder: string, ...figures: number[]): Promise<void> {
  const written = await runProcess(await ensureProgram('python3'), [
    join(SOURCE, 'write-data.py'),
    folder,
    ...figures.map(String),
  ]);
  if (written.code !== 0) throw new Error(written.stderr);
}

async function subnetOf(project: TestProject): Promise<string> {
  return /_SUBNET=(.*)/.exec(await project.read('.env'))?.[1] ?? '';
}

function composeText(setup: LegacySetup, subnet: string, options: LegacyOptions): string {
  const environment = {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: compose replaces it
    RAG_API_TOKEN: '${RAG_API_TOKEN}',
    RAG_LOG_LEVEL: 'WARNING',
    RAG_PORT: '8002',
    ...options.environment,
  };
  const volume = `${setup.project.name}-rag-mcp-models`;
  return `name: ${setup.id}
services:
  ${setup.service}:
    image: ${setup.image}
    container_name: ${setup.service}
    ports: ["${options.address ?? '127.0.0.1'}:${setup.port}:8002"]
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

async function buildImage(setup: LegacySetup): Promise<void> {
  const folder = join(setup.directory, '.image');
  await cp(SOURCE, folder, { recursive: true });
  const base = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
  await docker('build', '--quiet', '--build-arg', `NODE_IMAGE=${base}`, '--tag', setup.image, folder);
  await rm(folder, { recursive: true });
}

/** Files that stand for GGUF models; random, so that nothing makes them smaller. */
async function fillModels(setup: LegacySetup, megabytes: number): Promise<void> {
  const models = await placeOf(setup.volume);
  const file = await open(join(models, 'model.gguf'), 'w');
  for (let written = 0; written < megabytes; written += 1) await file.write(randomBytes(1 << 20));
  await file.close();
  await mkdir(join(models, 'sub dir'));
  await writeFile(join(models, 'sub dir/small.gguf'), 'GGUF');
}

async function answers(setup: LegacySetup): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    if (await setup.health().catch(() => undefined)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(await docker('logs', setup.service));
}
