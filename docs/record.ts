// Records what README shows: the real tasks, on a terminal, in a temporary clone of this project with names and ports of
// its own. `npm run pictures` writes the pictures and README's outputs; tests/tasks/readme.test.ts compares them.
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';
import { ensureProgram } from '../tests/programs.ts';
import { synapseProject, type TestProject } from '../tests/tasks/project.ts';
import { monthOfSamples, NOW } from '../tests/tasks/status-facts.ts';
import { animatedSvg, type Chunk, finalText } from './terminal.ts';

const DOCS = fileURLToPath(new URL('.', import.meta.url));
export const README = join(DOCS, '../README.md');

interface Scene {
  /** README's block: `<!-- output: ID -->` … `<!-- end -->`. */
  id: string;
  command: string;
  before?: (project: TestProject) => Promise<unknown>;
  /** README shows `…` in place of the lines from the first that matches to the last one before the other. */
  hide?: [from: RegExp, until: RegExp];
}

const SCENES: readonly Scene[] = [
  { id: 'up', command: 'npm run up -- --yes', hide: [/^/, /^✓ up/] },
  {
    id: 'release',
    command: 'npm run release -- patch --yes',
    hide: [/^→ /, /^Released/],
    before: (project) =>
      project.commit('fix(service): answer /health while a store is being restored (#12)', { note: '1\n' }),
  },
  { id: 'switch', command: 'npm run switch -- both --version v1.0.1 --yes' },
  { id: 'backup', command: 'npm run backup' },
  { id: 'list', command: 'npm run backup -- list' },
  { id: 'status', command: 'npm run status' },
  {
    id: 'refusal',
    command: 'npm run release -- minor --yes',
    before: async (project) => {
      await project.git('switch', '--quiet', '--create', 'topic');
      await project.commit('feat: a new tool');
      await project.write('note', '2\n');
    },
  },
];
const PICTURED = ['release', 'switch'];

export interface Recorded extends Scene {
  chunks: Chunk[];
}

/** In the pictures, a wait takes no longer than this. */
const LONGEST_WAIT = 1.2;

/** Runs a command on a terminal wide enough to break no line; `mapped` replaces the names of the temporary project. */
function record(project: TestProject, command: string, mapped: (text: string) => string): Promise<Chunk[]> {
  const env = { ...process.env, TERM: 'xterm-256color', npm_config_loglevel: 'silent', NO_COLOR: undefined };
  const argv = ['-qec', `stty cols 400 rows 40; exec ${command}`, '/dev/null'];
  const child = spawn('script', argv, {
    cwd: project.root,
    env: { ...env, NODE_TEST_CONTEXT: undefined },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const chunks: Chunk[] = [];
  const began = performance.now();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    chunks.push({ at: (performance.now() - began) / 1000, text: mapped(text) });
  });
  return new Promise((resolve, reject) => child.on('error', reject).on('close', () => resolve(chunks)));
}

/** What the reader's own project would say in place of the temporary one. */
function nameMap(project: TestProject): (text: string) => string {
  const names: [string, string][] = [
    [project.root, '/home/me/synapse'],
    [join(project.directory, 'data'), '/opt/synapse/data'],
    [join(project.directory, 'backups'), '/opt/synapse/backups'],
    // The column that the name stands in becomes as much narrower.
    [`archive${' '.repeat(project.name.length - 'synapse'.length)}`, 'archive'],
    [project.name, 'synapse'],
    [`:${project.ports.dev}`, ':8003'],
    [`:${project.ports.prod}`, ':8002'],
  ];
  return (text) => names.reduce((result, [from, to]) => result.replaceAll(from, to), text);
}

/** Plays all scenes. `t.after` gets what removes the project. */
export async function recordAll(t: TestContext) {
  const project = await synapseProject(t);
  const mapped = nameMap(project);
  const backups = join(project.directory, 'backups');
  await project.edit('.env', (text) => `${text}SYNAPSE_CPUS=1\nSYNAPSE_BACKUP_DIR=${backups}\n`);
  const recorded: Recorded[] = [];
  for (const scene of SCENES) {
    await scene.before?.(project);
    recorded.push({ ...scene, chunks: await record(project, scene.command, mapped) });
  }
  return { project, mapped, recorded };
}

/** A block of README: the command and what it wrote. */
export function outputOf({ command, chunks, hide }: Recorded): string {
  const lines = finalText(chunks).split('\n');
  const from = lines.findIndex((line) => hide?.[0].test(line));
  const until = lines.findLastIndex((line) => hide?.[1].test(line));
  if (from >= 0 && until > from) lines.splice(from, until - from, '…');
  return [`$ ${command}`, ...lines].join('\n');
}

const BLOCK = /(<!-- output: (\w+) -->\n```console\n)((?:(?!```)[\s\S])*)(\n```\n<!-- end -->)/g;

/** The blocks of README: id → text. */
export function blocksOf(readme: string): Map<string, string> {
  return new Map([...readme.matchAll(BLOCK)].map(([, , id, text]) => [id!, text!]));
}

/** Waits shortened, the commands typed: what the picture shows. */
function film(recorded: readonly Recorded[]): Chunk[] {
  const chunks: Chunk[] = [];
  let now = 0.5;
  for (const { command, chunks: written } of recorded) {
    const words = command.split(/(?<= )/);
    chunks.push({ at: now, text: `${chunks.length > 0 ? '\n' : ''}\u001b[36m$\u001b[0m ` });
    for (const word of words) {
      now += 0.2;
      chunks.push({ at: now, text: word });
    }
    chunks.push({ at: now, text: '\r\n' });
    let last = 0;
    for (const { at, text } of written) {
      now += Math.min(at - last, LONGEST_WAIT);
      last = at;
      chunks.push({ at: now, text });
    }
    now += 1.5;
  }
  return chunks;
}

/** A month of samples, that of the tests, ending now: a new project has none. */
async function writeSamples(project: TestProject): Promise<void> {
  const shift = Math.floor((Date.now() - NOW.getTime()) / 3_600_000) * 3_600_000;
  const rows = monthOfSamples().hours.map((row) => ({
    ...row,
    hour: new Date(Date.parse(`${row.hour}:00:00Z`) + shift).toISOString().slice(0, 13),
  }));
  await project.write('.synapse/samples.jsonl', rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
}

async function photographStatus(project: TestProject, mapped: (text: string) => string): Promise<void> {
  await writeSamples(project);
  const file = join(project.directory, 'status.html');
  await project.task('status', ['--html', file]);
  await writeFile(file, mapped(await readFile(file, 'utf8')));
  const browser = await chromium.launch({
    executablePath: await ensureProgram('chromium'),
    args: ['--no-sandbox', '--disable-gpu'],
  });
  const page = await browser.newPage({ viewport: { width: 1100, height: 800 } });
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    await page.goto(pathToFileURL(file).href);
    await page.screenshot({ path: join(DOCS, `status-${colorScheme}.png`), fullPage: true });
  }
  await browser.close();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const cleanups: (() => unknown)[] = [];
  try {
    const { project, mapped, recorded } = await recordAll({
      after: (work: () => unknown) => cleanups.push(work),
    } as unknown as TestContext);
    const pictured = recorded.filter(({ id }) => PICTURED.includes(id));
    await writeFile(join(DOCS, 'release.svg'), animatedSvg('A release and a switch', film(pictured)));
    await photographStatus(project, mapped);
    const outputs = new Map(recorded.map((one) => [one.id, outputOf(one)]));
    const readme = await readFile(README, 'utf8');
    await writeFile(
      README,
      readme.replace(BLOCK, (_, start, id, old, end) => start + (outputs.get(id) ?? old) + end),
    );
    if (process.argv.includes('--print')) console.log([...outputs.values()].join('\n\n'));
  } finally {
    for (const work of cleanups) await work();
  }
}
