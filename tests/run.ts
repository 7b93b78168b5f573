// `npm test`: brings the engine up by the same code that users run, then runs every test. The service's
// tests run inside the base image, since they need the node that the image has. A test that is skipped
// counts as a failure: nothing passes by not running.
// `npm run soak` runs the random tests with much larger counts (SOAK=1), which CI has no time for.
// Usage: tsx tests/run.ts [unit] [service] [tasks] [soak] [-- FILE-PATTERN]
import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { bundledProgram } from '../tasks/lib/backup/program.ts';
import { bringUpEngine } from './engine.ts';
import { ensurePrograms } from './programs.ts';
import { REPOSITORY as ROOT, runProcess } from './tasks/processes.ts';

const SUITES = ['unit', 'service', 'tasks', 'soak'];
/** Twice CI's two cores: a test waits for a container, or for a time limit, as often as it works. */
const CONCURRENCY = 4;
/** They come first: else the last one would run alone at the end. */
const LONGEST = [
  ...['release-kill', 'backup-live', 'synapse', 'readme', 'switch-kill', 'backup-accidents', 'release-push'],
  ...['switch-swarm', 'switch', 'migrate-situations', 'migrate', 'bad-input', 'release-undo'],
];

const [words = '', pattern = ''] = process.argv
  .slice(2)
  .join(' ')
  .split(/(?:^| )-- ?/);
const asked = words.split(' ').filter(Boolean);
const unknown = asked.find((word) => !SUITES.includes(word));
if (unknown) {
  console.error(`unknown suite "${unknown}"; suites: ${SUITES.join(', ')}`);
  process.exit(2);
}
const suites = asked.length > 0 ? asked : ['unit', 'service', 'tasks'];
const isSoak = suites.includes('soak');
if (isSoak) process.env.SOAK = '1';

/** The files of a suite that are to run: of the service's, a soak repeats the random ones. */
function chosen(suite: string): string[] {
  const isChosen = (name: string) =>
    suites.includes(suite) || (isSoak && suite === 'service' && /kill|full-disk|concurrency/.test(name));
  const isLong = (name: string) => LONGEST.includes(name.replace('.test.ts', ''));
  return readdirSync(join(ROOT, 'tests', suite))
    .filter((name) => name.endsWith('.test.ts') && name.includes(pattern) && isChosen(name))
    .sort((a, b) => Number(isLong(b)) - Number(isLong(a)))
    .map((name) => join('tests', suite, name));
}

const counts = { passed: 0, failed: 0, skipped: 0 };

/** Runs files by node's test runner. */
async function runHere(files: string[]): Promise<void> {
  if (files.length === 0) return;
  const events = run({ files: files.map((file) => join(ROOT, file)), concurrency: CONCURRENCY });
  events.on('test:pass', ({ name, file, skip, todo, details }) => {
    const why = skip ?? todo;
    if (why !== undefined) console.error(`skipped: ${name} (${file}): ${why || 'no reason given'}`);
    if (why !== undefined) counts.skipped += 1;
    else if (details.type !== 'suite') counts.passed += 1;
  });
  events.on('test:fail', () => {
    counts.failed += 1;
  });
  await new Promise((resolve) => {
    events.compose(new spec()).on('end', resolve).pipe(process.stdout, { end: false });
  });
}

/** Runs the service's tests by the image's own node, with the project mounted read-only. */
async function runInImage(files: string[], image: string): Promise<void> {
  if (files.length === 0) return;
  const mount = `type=bind,source=${ROOT},target=/project,readonly`;
  const bundle = join('/project', relative(ROOT, BUNDLE));
  const argv = [
    ...['run', '--rm', '--init', '--network=none', '--mount', mount, '--workdir=/project'],
    // Small enough to be filled by a test.
    '--tmpfs=/small:size=2m',
    ...[`--env=SERVICE_BUNDLE=${bundle}`, '--env=SOAK', image],
    ...['node', '--test', '--test-concurrency=1', '--test-reporter=spec', ...files],
  ];
  // Printed wholly: other tests run at the same time.
  const { code, stdout, stderr } = await runProcess('docker', argv);
  process.stdout.write(stdout);
  process.stderr.write(stderr);
  const count = (word: string) => Number(new RegExp(`^ℹ ${word} (\\d+)$`, 'm').exec(stdout)?.[1] ?? 0);
  counts.passed += count('pass');
  counts.failed += Math.max(count('fail'), code === 0 ? 0 : 1);
  counts.skipped += count('skipped') + count('todo');
}

const started = Date.now();
// For the processes of the test files, which run as they stand.
process.execArgv = ['--import', 'tsx/esm'];
// Docker's programs are in Go: with fewer collections they take a fifth to a quarter less of the processor.
process.env.GOGC ??= '1600';
process.env.GOMEMLIMIT ??= '512MiB';

/** The service bundled as for the image, and the backup program, once for all tests; gone when this process ends. */
const BUNDLE = join(ROOT, `node_modules/.cache/service-${process.pid}`);
process.once('exit', () => rmSync(BUNDLE, { recursive: true, force: true }));
execFileSync(process.execPath, [join(ROOT, 'service/bundle.mjs'), join(BUNDLE, 'synapse.mjs')]);
writeFileSync(join(BUNDLE, 'backup.mjs'), await bundledProgram());
process.env.SERVICE_BUNDLE = BUNDLE;

const withoutEngine = runHere(chosen('unit'));
const tasks = [...chosen('tasks'), ...chosen('soak')];
const service = chosen('service');
if (tasks.length + service.length > 0) {
  // The programs come while the base image is fetched: both wait for the network most of the time.
  const engine = await bringUpEngine(() => (tasks.length > 0 ? ensurePrograms() : undefined));
  await withoutEngine;
  await Promise.all([runInImage(service, engine.baseImage), runHere(tasks)]);
  await engine.stop();
}
await withoutEngine;

const { passed, failed, skipped } = counts;
console.log(`\n${suites.join(', ')}: ${((Date.now() - started) / 1000).toFixed(0)} s`);
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped${passed === 0 ? ': no test ran' : ''}`);
process.exitCode = failed + skipped > 0 || passed === 0 ? 1 : 0;
