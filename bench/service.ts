// The memory server beside that of another checkout: how long ingesting a document takes, by its size, how long others
// wait meanwhile, and how long a search takes among 100,000 facts.
// Usage, by the Node of the image (24): node bench/service.ts [LARGEST-MB] [OTHER-CHECKOUT]
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { median } from './figures.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const [largest = '20', other] = process.argv.slice(2);
const SIZES = [1, 2, 4, 8, 16, 20].filter((size) => size <= Number(largest));
const FACTS = 100_000;
const PORT = 8765;
const LINE = '2026-11-28T01:02:03Z INFO request served in 12 ms by worker 4, status 200\n';

const TEXTS: Record<string, (bytes: number) => string> = {
  'a log': (bytes) => LINE.repeat(Math.ceil(bytes / LINE.length)),
  'one line': (bytes) => 'word '.repeat(bytes / 5),
};

const scratch = mkdtempSync(join(tmpdir(), 'bench-service-'));
process.once('exit', () => rmSync(scratch, { recursive: true, force: true }));

async function startService(checkout: string, data: string) {
  const bundle = join(data, '..', 'bundle', 'synapse.mjs');
  execFileSync(process.execPath, [join(checkout, 'service/bundle.mjs'), bundle], { stdio: 'ignore' });
  const env = {
    SYNAPSE_CONFIG_PATH: join(data, '..', 'synapse.json'),
    SYNAPSE_DATA__DIRECTORY: data,
    SYNAPSE_SERVER__PORT: String(PORT),
    LOG_LEVEL: 'ERROR',
  };
  const child = spawn(process.execPath, [bundle], { env, stdio: 'inherit' });
  process.once('exit', () => child.kill('SIGKILL'));
  const exited = new Promise((resolve) => child.once('exit', resolve));
  const stop = () => {
    child.kill('SIGKILL');
    return exited;
  };
  for (;;) {
    const health = await fetch(`http://127.0.0.1:${PORT}/health`).then(
      (answer) => answer.json(),
      () => undefined,
    );
    if (health && !(health as { backlog?: object }).backlog) return { stop };
    await setTimeout(50);
  }
}

async function call(name: string, args: Record<string, unknown>): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${PORT}/mcp`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }),
  });
  const { result } = (await answer.json()) as { result?: { isError?: boolean } };
  if (!result || result.isError) throw new Error(`${name}: ${JSON.stringify(result)}`);
}

async function timed(work: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

/** Seconds of an ingestion, and of the longest answer of /health meanwhile. */
async function ingest(text: string, filename: string): Promise<[seconds: number, longest: number]> {
  const form = new FormData();
  form.append('file', new Blob([text]), filename);
  const uploaded = await fetch(`http://127.0.0.1:${PORT}/v1/upload`, { method: 'POST', body: form });
  const { file_path } = (await uploaded.json()) as { file_path: string };
  let done = false;
  let longest = 0;
  const watch = async () => {
    while (!done) {
      // A server that is blocked for long also drops connections.
      const waited = await timed(() =>
        fetch(`http://127.0.0.1:${PORT}/health`)
          .then((answer) => answer.text())
          .then(
            () => {},
            () => {},
          ),
      );
      longest = Math.max(longest, waited);
      await setTimeout(10);
    }
  };
  const watching = watch();
  const took = await timed(() => call('sy.mem.ingest', { project_id: 'p', file_path }));
  done = true;
  await watching;
  return [took / 1000, longest / 1000];
}

/** Facts as any program writes them: a hundred thousand calls would take minutes. */
function addFacts(data: string): void {
  const sql = new DatabaseSync(join(data, 'memory.db'));
  const insert = sql.prepare(
    `INSERT INTO memory_facts VALUES (?, 'p', 'general', ?, ?, 0.9, 'agent', '2026', '2026')`,
  );
  sql.exec('BEGIN');
  for (let i = 0; i < FACTS; i++)
    insert.run(
      `f${i}`,
      `service.setting.${i}`,
      JSON.stringify(`value ${i % 1000} of the service number ${i}`),
    );
  sql.exec('COMMIT');
  sql.close();
}

async function measure(name: string, checkout: string): Promise<void> {
  const folder = join(scratch, `data-of-${name}`);
  const data = join(folder, 'data');
  mkdirSync(data, { recursive: true });
  writeFileSync(join(folder, 'synapse.json'), '{}');
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  const first = await startService(checkout, data);
  for (const [kind, make] of Object.entries(TEXTS)) {
    for (const size of SIZES) {
      const [seconds, longest] = await ingest(make(size * 1_000_000), `${kind} ${size}`);
      console.log(
        `${name}: ${kind} of ${size} MB in ${seconds.toFixed(1)} s, /health at most ${longest.toFixed(2)} s`,
      );
    }
  }
  await first.stop();
  addFacts(data);
  const indexed = performance.now();
  const second = await startService(checkout, data);
  console.log(
    `${name}: ready with ${FACTS} facts of another program in ${((performance.now() - indexed) / 1000).toFixed(1)} s`,
  );
  for (const [kind, query] of [
    ['a rare word', '77777'],
    ['a word of every fact', 'service'],
    ['a question', 'what is the value of setting 500 of the service'],
  ]) {
    const search = () => call('sy.mem.search', { project_id: 'p', query, memory_type: 'symbolic' });
    const times = [];
    for (let i = 0; i < 5; i++) times.push(await timed(search));
    console.log(`${name}: search for ${kind} ${median(times).toFixed(0)} ms`);
  }
  await second.stop();
}

if (other) await measure('other', other);
await measure('this', ROOT);
