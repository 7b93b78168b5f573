// tasks/start.mjs: a task runs as its sources are now. Each test has a copy of some tasks, or two small ones, with a
// node_modules of its own to keep the bundles in.
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { REPOSITORY as ROOT, runProcess, temporaryFolder } from '../tasks/processes.ts';

const TASK = 'tasks/build-push.ts';
const TASKS = ['build-push.ts', 'status.ts'];

/** A task that is joined in a moment, for what does not depend on what is joined. */
const smallTask = (name: string) => `import { usage } from './lib/usage.ts';
const { summary }: { summary: string } = { summary: 'Says so.' };
console.log(summary);
console.log(usage('${name}'));
`;
const SMALL = {
  'tasks/lib/usage.ts': `export const usage = (name: string) => \`Usage: tsx tasks/\${name}.ts\`;\n`,
  'tasks/build-push.ts': smallTask('build-push'),
  'tasks/status.ts': smallTask('status'),
};

/** A folder with these files of ours, and a node_modules that keeps bundles of its own. */
function copyOf(t: TestContext, paths: readonly string[]) {
  const root = temporaryFolder(t);
  for (const path of [...paths, 'package.json', 'tsconfig.json'])
    cpSync(join(ROOT, path), join(root, path), { recursive: true });
  mkdirSync(join(root, 'node_modules'));
  for (const name of readdirSync(join(ROOT, 'node_modules')).filter((entry) => !entry.startsWith('.cache')))
    symlinkSync(join(ROOT, 'node_modules', name), join(root, 'node_modules', name));
  const node = (...argv: string[]) => runProcess(process.execPath, argv, { cwd: root });
  return {
    root,
    cache: join(root, 'node_modules/.cache/release-flow'),
    node,
    run: (...argv: string[]) => node(join(root, 'tasks/start.mjs'), ...argv),
  };
}

function smallTasks(t: TestContext) {
  const copy = copyOf(t, ['tasks/start.mjs']);
  mkdirSync(join(copy.root, 'tasks/lib'));
  for (const [path, text] of Object.entries(SMALL)) writeFileSync(join(copy.root, path), text);
  const edit = (change: (text: string) => string) =>
    writeFileSync(join(copy.root, TASK), change(readFileSync(join(copy.root, TASK), 'utf8')));
  return { ...copy, edit };
}

test('started twice it is bundled once, and says what it says by tsx', async (t) => {
  const { root, node, cache, run } = copyOf(t, ['tasks', 'service/config']);
  // Few of them: joining takes as long as what is joined.
  for (const name of readdirSync(join(root, 'tasks')))
    if (name.endsWith('.ts') && !TASKS.includes(name)) rmSync(join(root, 'tasks', name));
  const byTsx = await node('--import', 'tsx/esm', TASK, '--help');
  assert.match(byTsx.stdout, /Usage/);
  for (let time = 0; time < 2; time += 1) {
    const { code, stdout, stderr } = await run('build-push', '--help');
    assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: byTsx.stdout, stderr: '' });
  }
  assert.equal(readdirSync(cache).length, 1);
});

test('a newer source is what runs from then on', async (t) => {
  const { run, edit } = smallTasks(t);
  await run('build-push', '--help');
  edit((text) => text.replace('Says so.', 'Other.'));
  assert.match((await run('build-push', '--help')).stdout, /^Other\./);
});

test('started many times at once before it is bundled, each runs', async (t) => {
  const { run, cache } = smallTasks(t);
  const outcomes = await Promise.all(Array.from({ length: 4 }, () => run('build-push', '--help')));
  assert.deepEqual(
    outcomes.map(({ code }) => code),
    [0, 0, 0, 0],
  );
  assert.equal(readdirSync(cache).length, 1, 'and nothing unfinished stays');
});

test('where nothing can be kept it runs all the same', async (t) => {
  const { run, root } = smallTasks(t);
  writeFileSync(join(root, 'node_modules/.cache'), 'a file');
  const { code, stdout, stderr } = await run('build-push', '--help');
  assert.equal(code, 0, stderr);
  assert.match(stdout, /Usage: tsx tasks\/build-push\.ts/);
});

test('a source with a mistake is reported with its file and line', async (t) => {
  const { run, edit } = smallTasks(t);
  edit((text) => `${text}\nconst = 1;\n`);
  const { code, stderr } = await run('build-push', '--help');
  assert.equal(code, 1);
  assert.match(stderr, /build-push\.ts:\d+:\d+/);
});

test('every task has an npm script, and every such script names a task', async () => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const named = Object.values(scripts).flatMap((script) => /start\.mjs (\S+)/.exec(script)?.[1] ?? []);
  const tasks = readdirSync(join(ROOT, 'tasks')).filter((file) => file.endsWith('.ts'));
  assert.deepEqual([...new Set(named)].sort(), tasks.map((file) => file.slice(0, -3)).sort());
});

test('a task that does not exist: exit 2', async (t) => {
  const { run } = smallTasks(t);
  const { code, stderr } = await run('statsu');
  assert.equal(code, 2);
  assert.match(stderr, /no task named "statsu"/);
});
