// A real registry process of a test's own, on a free loopback port with its own storage, behind a small proxy
// that can fail on request: rate limits and server errors that a healthy registry will not produce.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { ensureProgram } from '../programs.ts';
import { docker } from './processes.ts';
import { freePorts } from './project.ts';

/** What the proxy answers instead of the registry; undefined: it passes the request on. */
export type Fault = (method: string, path: string) => number | undefined;

export class Registry {
  /** `127.0.0.1:PORT`, to be set as image.registry. */
  address = '';
  fault: Fault = () => undefined;
  /** Requests that were answered with an error on request. */
  faults = 0;
  readonly upstream: number;

  constructor(upstream: number) {
    this.upstream = upstream;
  }

  /** The tags that the registry itself has of an image. */
  async tags(name: string): Promise<string[]> {
    const response = await fetch(`http://127.0.0.1:${this.upstream}/v2/${name}/tags/list`);
    const { tags } = (await response.json()) as { tags?: string[] | null };
    return (tags ?? []).sort();
  }

  /** The manifest that the registry itself has, and its digest; undefined if it has none. */
  async manifest(name: string, tag: string) {
    const headers = {
      accept:
        'application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json',
    };
    const response = await fetch(`http://127.0.0.1:${this.upstream}/v2/${name}/manifests/${tag}`, {
      headers,
    });
    if (!response.ok) return undefined;
    const manifest = (await response.json()) as {
      mediaType: string;
      manifests?: { digest: string; platform: { os: string; architecture: string } }[];
    };
    return { digest: response.headers.get('docker-content-digest'), ...manifest };
  }
}

async function serve(t: TestContext, port: number): Promise<void> {
  const program = await ensureProgram('docker-registry');
  const directory = await mkdtemp(join(tmpdir(), 'release-flow-registry-'));
  const config = join(directory, 'config.yml');
  await writeFile(
    config,
    [
      'version: 0.1',
      'log: { level: error, accesslog: { disabled: true } }',
      `storage: { filesystem: { rootdirectory: ${join(directory, 'storage')} } }`,
      `http: { addr: 127.0.0.1:${port} }`,
      '',
    ].join('\n'),
  );
  const child = spawn(program, ['serve', config], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('close', resolve));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
    await rm(directory, { recursive: true, force: true });
  });
  for (let attempt = 0; ; attempt += 1) {
    const answer = await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => undefined);
    if (answer?.ok) return;
    if (attempt > 200) throw new Error('the registry did not start');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Starts a registry; it stops with the test. The test's image names in it are removed from the engine, too. */
export async function startRegistry(t: TestContext): Promise<Registry> {
  const [port = 0] = await freePorts(1);
  await serve(t, port);
  const registry = new Registry(port);
  const proxy = createServer((incoming, outgoing) => {
    const { method = 'GET', url = '/', headers } = incoming;
    const status = registry.fault(method, url);
    if (status !== undefined) {
      registry.faults += 1;
      incoming.resume();
      outgoing.writeHead(status, { 'content-type': 'application/json' });
      outgoing.end(JSON.stringify({ errors: [{ code: 'UNKNOWN', message: `a test asked for ${status}` }] }));
      return;
    }
    const options = { host: '127.0.0.1', port, method, path: url, headers };
    const passed = request(options, (response) => {
      outgoing.writeHead(response.statusCode ?? 502, response.headers);
      response.pipe(outgoing);
    });
    passed.on('error', () => outgoing.destroy());
    incoming.pipe(passed);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  registry.address = `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  t.after(async () => {
    proxy.closeAllConnections();
    await new Promise((resolve) => proxy.close(resolve));
    const format = '{{.Repository}}:{{.Tag}}';
    const list = await docker(
      'image',
      'ls',
      '--filter',
      `reference=${registry.address}/*`,
      '--format',
      format,
    );
    const images = list.split('\n').filter((name) => name && !name.includes('<none>'));
    if (images.length > 0) await docker('image', 'rm', '--force', ...images);
  });
  return registry;
}
