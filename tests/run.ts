// `npm test`: brings the engine up by the same code that users run, then runs every test. The service's
// tests run inside the base image, since they need the node that the image has. A test that is skipped
// counts as a failure: nothing passes by not running.
// `npm run soak` runs the random tests with much larger counts (SOAK=1), which CI has no time for.
// Usage: tsx tests/run.ts [unit] [service] [tasks] [soak] [-- FILE-PATTERN]
import { execFileSync, spawn } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';
import { bundledProgram } from '../tasks/lib/backup/program.ts';
import { bringUpEngine } from './engine.ts';
import { ensurePrograms } from './programs.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const SUITES = ['unit', 'service', 'tasks', 'soak'] as const;
type Suite = (typeof SUITES)[number];

/** File → seconds of its tests. */
const durations = new Map<string, number>();

function noteDuration({
  file = '',
  nesting,
  details,
}: {
  file?: string;
  nesting: number;
  details: { duration_ms: number };
}) {
  if (nesting === 0) durations.set(file, (durations.get(file) ?? 0) + details.duration_ms / 1000);
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const separator = process.argv.indexOf('--');
const words = process.argv.slice(2, separator < 0 ? undefined : separator);
const pattern = separator < 0 ? '' : (process.argv[separator + 1] ?? '');
const unknown = words.find((word) => !SUITES.includes(word as Suite));
if (unknown) {
  console.error(`unknown suite "${unknown}"; suites: ${SUITES.join(', ')}`);
  process.exit(2);
}
const suites = words.length > 0 ? (words as Suite[]) : SUITES.filter((suite) => suite !== 'soak');
if (suites.includes('soak')) process.env.SOAK = '1';

function testFiles(suite: Suite): string[] {
  return readdirSync(join(ROOT, 'tests', suite))
    .filter((name) => name.endsWith('.test.ts') && name.includes(pattern))
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b))
    .map((name) => join('tests', suite, name));
}

/** Files that take longest, first: else the last one would run alone at the end. */
const LONGEST = [
  ...['release-kill', 'backup-live', 'synapse', 'readme', 'switch-kill', 'backup-accidents', 'release-push'],
  ...['switch-swarm', 'switch', 'migrate-situations', 'migrate', 'bad-input', 'release-undo'],
  ...['backup-formats', 'status', 'migrate-kill', 'release-options', 'switch-remote', 'release-faults'],
  ...['engine', 'build-push', 'results', 'doctor', 'another-app', 'setup'],
];

function rank(file: string): number {
  const index = LONGEST.indexOf(file.replace('.test.ts', ''));
  return index < 0 ? LONGEST.length : index;
}

/** Twice CI's two cores: a test waits for a container, or for a time limit, as often as it works. */
const CONCURRENCY = 4;

// For the processes of the test files, which run as they stand.
process.execArgv = ['--import', 'tsx/esm'];

/** The service bundled as for the image, once for all tests; gone when this process ends. */
const BUNDLE = join(ROOT, `node_modules/.cache/service-${process.pid}`);
process.once('exit', () => rmSync(BUNDLE, { recursive: true, force: true }));

/** Runs files by node's test runner. */
async function runHere(files: string[]): Promise<Counts> {
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  if (files.length === 0) return counts;
  const events = run({
    files: files.map((file) => join(ROOT, file)),
    concurrency: CONCURRENCY,
  });
  events.on('test:pass', (event) => {
    noteDuration(event);
    if (event.skip !== undefined || event.todo !== undefined) {
      counts.skipped += 1;
      console.error(
        `skipped: ${event.name} (${event.file}): ${event.skip || event.todo || 'no reason given'}`,
      );
    } else if (event.details.type !== 'suite') counts.passed += 1;
  });
  events.on('test:fail', (event) => {
    noteDuration(event);
    counts.failed += 1;
  });
  await new Promise((resolve) => {
    events.compose(new spec()).on('end', resolve).pipe(process.stdout, { end: false });
  });
  return counts;
}

/** Runs the service's tests by the image's own node, with the project mounted read-only. */
async function runInImage(files: string[], image: string): Promise<Counts> {
  if (files.length === 0) return { passed: 0, failed: 0, skipped: 0 };
  const bundle = join('/project', relative(ROOT, process.env.SERVICE_BUNDLE ?? ''));
  const mount = `type=bind,source=${ROOT},target=/project,readonly`;
  // Small enough to be filled by a test.
  const small = '--tmpfs=/small:size=2m';
  const container = [
    'run',
    '--rm',
    '--init',
    '--network=none',
    '--mount',
    mount,
    small,
    `--env=SERVICE_BUNDLE=${bundle}`,
    ...(process.env.SOAK ? ['--env=SOAK'] : []),
    '--workdir=/project',
  ];
  const node = ['node', '--test', '--test-concurrency=1', '--test-reporter=spec'];
  const argv = [...container, image, ...node, ...files];
  const child = spawn('docker', argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk;
  });
  const exitCode = await new Promise<number>((resolve) => child.on('close', (code) => resolve(code ?? 1)));
  // Wholly: other tests run at the same time.
  process.stdout.write(output);
  const count = (word: string) => Number(new RegExp(`^ℹ ${word} (\\d+)$`, 'm').exec(output)?.[1] ?? 0);
  const failed = Math.max(count('fail'), exitCode === 0 ? 0 : 1);
  return { passed: count('pass'), failed, skipped: count('skipped') + count('todo') };
}

// Docker's programs are in Go: with fewer collections they take a fifth to a quarter less of the processor.
process.env.GOGC ??= '1600';
process.env.GOMEMLIMIT ??= '512MiB';

const started = Date.now();
// For the tests of the service, and of the backup program, which run in a container as well.
execFileSync(process.execPath, [join(ROOT, 'service/bundle.mjs'), join(BUNDLE, 'synapse.mjs')]);
writeFileSync(join(BUNDLE, 'backup.mjs'), await bundledProgram());
process.env.SERVICE_BUNDLE = BUNDLE;
const chosen = (suite: Suite) => (suites.includes(suite) ? testFiles(suite) : []);
const withoutEngine = runHere(chosen('unit'));
// The programs come while the base image is fetched: both wait for the network most of the time.
const andPrograms = () =>
  suites.some((suite) => suite === 'tasks' || suite === 'soak') ? ensurePrograms() : undefined;
const engine = suites.some((suite) => suite !== 'unit') ? await bringUpEngine(andPrograms) : undefined;
const results = [await withoutEngine];
if (engine) {
  const inImage = testFiles('service').filter(
    (file) =>
      suites.includes('service') || (suites.includes('soak') && /kill|full-disk|concurrency/.test(file)),
  );
  const here = runHere([...chosen('tasks'), ...chosen('soak')]);
  results.push(...(await Promise.all([runInImage(inImage, engine.baseImage), here])));
  await engine.stop();
}

const total = (key: keyof Counts) => results.reduce((sum, result) => sum + result[key], 0);
const longest = [...durations].sort(([, a], [, b]) => b - a).slice(0, 15);
console.log('\nLongest files:');
for (const [file, seconds] of longest)
  console.log(`${seconds.toFixed(0).padStart(5)} s  ${relative(ROOT, file)}`);
console.log(`\n${suites.join(', ')}: ${((Date.now() - started) / 1000).toFixed(0)} s`);
console.log(`${total('passed')} passed, ${total('failed')} failed, ${total('skipped')} skipped`);
if (total('passed') === 0) console.log('no test ran');
process.exitCode = total('failed') + total('skipped') > 0 || total('passed') === 0 ? 1 : 0;
