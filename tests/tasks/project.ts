// A project of a test's own: a real git repository with a bare remote, on the real engine, with names,
// ports and a subnet that nobody else uses, so that tests run beside each other and a user's environments.
import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { queryEngine } from '../../tasks/lib/docker/engine.ts';
import { containerIds, imageNames } from '../../tasks/lib/docker/objects.ts';
import { docker, execute, type Outcome, REPOSITORY, type RunOptions, runProcess } from './processes.ts';
import { tinyBase } from './tiny-base.ts';

export { docker, type Outcome, REPOSITORY, type RunOptions, runProcess } from './processes.ts';

/** By node: `START TASK …`. */
export const START = join(REPOSITORY, 'tasks/start.mjs');
const TINY_APP = fileURLToPath(new URL('tiny-app', import.meta.url));

/** Sorted: the engine lists in any order. */
const sortedLines = (lines: readonly string[]) => [...lines].sort().join('\n');

/** What the engine lists of a kind, by its own interface: it is asked before and after most tests. */
async function listed<T>(
  kind: 'containers' | 'images' | 'networks' | 'volumes',
  filters: Record<string, string[]>,
): Promise<T[]> {
  const path = {
    containers: '/containers/json',
    images: '/images/json',
    networks: '/networks',
    volumes: '/volumes',
  };
  const question = `all=1&filters=${encodeURIComponent(JSON.stringify(filters))}`;
  const answer = await queryEngine(`${path[kind]}?${question}`);
  return (kind === 'volumes' ? (answer as { Volumes: T[] | null }).Volumes : (answer as T[])) ?? [];
}

/** Ports that are free now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

export class TestProject {
  readonly directory: string;
  readonly name: string;
  readonly root: string;
  readonly remote: string;
  ports = { dev: 0, prod: 0 };
  /** For its tasks, beside this process's own. */
  environment: RunOptions['env'] = {};

  constructor(directory: string, name: string) {
    this.directory = directory;
    this.name = name;
    this.root = join(directory, 'clone');
    this.remote = join(directory, 'remote.git');
  }

  async git(...argv: string[]): Promise<string> {
    const { stdout } = await execute('git', ['-C', this.root, ...argv], { maxBuffer: 64 << 20 });
    return stdout.trimEnd();
  }

  /** Runs a task of this repository in the project, as the npm scripts do, without a terminal. */
  task(name: string, argv: readonly string[] = [], options: RunOptions = {}): Promise<Outcome> {
    const env = { ...this.environment, ...options.env };
    return runProcess(process.execPath, [START, name, ...argv], { cwd: this.root, ...options, env });
  }

  async write(path: string, text: string): Promise<void> {
    await mkdir(dirname(join(this.root, path)), { recursive: true });
    await writeFile(join(this.root, path), text);
  }

  read(path: string): Promise<string> {
    return readFile(join(this.root, path), 'utf8');
  }

  async edit(path: string, change: (text: string) => string): Promise<void> {
    await this.write(path, change(await this.read(path)));
  }

  /** Commits files, and everything else that changed; returns the commit. */
  async commit(message: string, files: Record<string, string> = {}): Promise<string> {
    for (const [path, text] of Object.entries(files)) await this.write(path, text);
    await this.git('add', '--all');
    await this.git('commit', '--quiet', '--allow-empty', '-m', message);
    return this.git('rev-parse', 'HEAD');
  }

  /** Everything that a failed task must leave as it was: refs, index, files, images, containers, .env. */
  async snapshot(): Promise<Record<string, string>> {
    interface Container {
      Id: string;
      Names: string[];
      State: string;
    }
    const [refs, remote, status, images, containers, candidates] = await Promise.all([
      this.git('for-each-ref'),
      // Straight from the folder: `ls-remote` is four processes.
      execute('git', ['--git-dir', this.remote, 'for-each-ref']).then(({ stdout }) => stdout),
      this.git('status', '--porcelain', '--ignored=no'),
      listed<{ Id: string; RepoTags: string[] }>('images', { reference: [this.name] }),
      listed<Container>('containers', { label: [`com.docker.compose.project=${this.name}`] }),
      listed<Container>('containers', { label: [`release-flow.candidate=${this.name}`] }),
    ]);
    const ownTags = (tags: string[]) => tags.filter((tag) => tag.startsWith(`${this.name}:`));
    return {
      head: await this.read('.git/HEAD'),
      refs,
      remote,
      status,
      notes: await this.read('release-notes.md').catch(() => ''),
      env: await this.read('.env').catch(() => ''),
      images: sortedLines(
        images.flatMap(({ Id, RepoTags }) => ownTags(RepoTags).map((tag) => `${tag} ${Id}`)),
      ),
      containers: sortedLines(
        containers.map(({ Id, Names, State }) => `${Id} ${Names.join().slice(1)} ${State}`),
      ),
      candidates: sortedLines(candidates.map(({ Id }) => Id)),
    };
  }

  health(environment: 'dev' | 'prod'): Promise<Record<string, unknown>> {
    return fetch(`http://127.0.0.1:${this.ports[environment]}/health`).then(
      (response) => response.json() as Promise<Record<string, unknown>>,
    );
  }

  /** Removes containers, networks, volumes, images and files of the project. */
  async remove(): Promise<void> {
    const removeAll = (argv: string[], names: string[]) =>
      names.length > 0 ? docker(...argv, ...names) : '';
    const label = { label: [`com.docker.compose.project=${this.name}`] };
    const candidates = await containerIds({ label: [`release-flow.candidate=${this.name}`] });
    await removeAll(['rm', '--force', '--volumes'], [...(await containerIds(label)), ...candidates]);
    const networks = await listed<{ Id: string }>('networks', label);
    const volumes = await listed<{ Name: string }>('volumes', label);
    for (const { Id } of networks) await docker('network', 'rm', Id);
    for (const { Name } of volumes) await docker('volume', 'rm', Name);
    await removeAll(['image', 'rm', '--force'], await imageNames(`${this.name}:`));
    await rm(this.directory, { recursive: true, force: true });
    const locks = (await readdir(tmpdir())).filter((name) => name.startsWith(`release-flow-${this.name}-`));
    for (const name of locks) await rm(join(tmpdir(), name), { recursive: true, force: true });
  }
}

async function prepare(t: TestContext, prefix: string, mark = ''): Promise<TestProject> {
  const directory = await mkdtemp(join(tmpdir(), `release-flow-${prefix}-${mark}`));
  const project = new TestProject(directory, `${prefix}-${randomBytes(4).toString('hex')}`);
  t.after(() => project.remove());
  await mkdir(project.root);
  const [dev = 0, prod = 0] = await freePorts(2);
  project.ports = { dev, prod };
  return project;
}

/** First commit, on main, with a bare remote that has it. */
async function initialize(project: TestProject, dotenv: Record<string, string | number>): Promise<void> {
  await project.edit('configs/release.toml', (text) =>
    text.replace(/^name = ".*"$/gm, `name = "${project.name}"`),
  );
  const lines = Object.entries(dotenv).map(([name, value]) => `${name}=${value}\n`);
  await project.write('.env', lines.join(''));
  await project.git('init', '--quiet', '--initial-branch=main');
  await project.git('config', 'user.name', 'Test Person');
  await project.git('config', 'user.email', 'test@example.org');
  await project.commit('feat: first version');
  await execute('git', ['init', '--quiet', '--bare', '--initial-branch=main', project.remote]);
  await project.git('remote', 'add', 'origin', project.remote);
  await project.git('push', '--quiet', '--set-upstream', 'origin', 'main');
}

function subnet(): string {
  return `10.${randomInt(64, 255)}.${randomInt(0, 255)}.0/24`;
}

/** The smallest project: an image that builds in a second. `mark`: a part of the path that it lies in. */
export async function tinyProject(t: TestContext, mark = ''): Promise<TestProject> {
  const project = await prepare(t, 'tiny', mark);
  // Node reads all of it when it starts, and here nothing is fetched from anywhere.
  project.environment = { NODE_EXTRA_CA_CERTS: undefined };
  await cp(TINY_APP, project.root, { recursive: true });
  await rename(join(project.root, 'gitignore'), join(project.root, '.gitignore'));
  await initialize(project, {
    TINY_BASE_IMAGE: await tinyBase(),
    TINY_DEV_PORT: project.ports.dev,
    TINY_PROD_PORT: project.ports.prod,
    TINY_DEV_CONTAINER: `${project.name}-dev`,
    TINY_PROD_CONTAINER: `${project.name}-prod`,
    TINY_SUBNET: subnet(),
  });
  return project;
}

/** This very project as a user would clone it, uncommitted changes included. */
export async function synapseProject(t: TestContext): Promise<TestProject> {
  const project = await prepare(t, 'synapse');
  const listing = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  const { stdout } = await execute('git', ['-C', REPOSITORY, ...listing]);
  for (const path of stdout.split('\0').filter(Boolean)) {
    // A file that was deleted but not yet committed is still listed.
    await cp(join(REPOSITORY, path), join(project.root, path), { recursive: true }).catch(() => {});
  }
  await symlink(join(REPOSITORY, 'node_modules'), join(project.root, 'node_modules'));
  await initialize(project, {
    SYNAPSE_BASE_IMAGE: process.env.TEST_BASE_IMAGE ?? 'synapse-node:24',
    SYNAPSE_DATA_DIR: join(project.directory, 'data'),
    SYNAPSE_DEV_PORT: project.ports.dev,
    SYNAPSE_PROD_PORT: project.ports.prod,
    SYNAPSE_DEV_CONTAINER: `${project.name}-dev`,
    SYNAPSE_PROD_CONTAINER: `${project.name}-prod`,
    SYNAPSE_NETWORK: `${project.name}-net`,
    SYNAPSE_MODELS_VOLUME: `${project.name}-models`,
    SYNAPSE_SUBNET: subnet(),
    SYNAPSE_BIND_ADDRESS: '127.0.0.1',
  });
  return project;
}

/** Sets a key of release.toml, below its table's heading, and commits. */
export async function configure(project: TestProject, table: string, lines: string): Promise<void> {
  await project.edit('configs/release.toml', (text) =>
    text.includes(`[${table}]`)
      ? text.replace(`[${table}]\n`, `[${table}]\n${lines}\n`)
      : `${text}\n[${table}]\n${lines}\n`,
  );
  await project.commit(`build: configure ${table}`);
  await project.git('push', '--quiet', 'origin', 'main');
}
