// What `--json` prints fits the schema that is published, and each of its keys is described there. What would be lost:
// scripts that read a result and find another shape.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resultSchemas } from '../../tasks/lib/schemas.ts';
import { configure, tinyProject } from './project.ts';

const RUNS: [task: keyof typeof resultSchemas, argv: string[], code?: number][] = [
  ['release', ['--notes-only']],
  ['up', ['--yes']],
  ['setup', ['--yes']],
  ['release', ['patch', '--dry-run']],
  ['release', ['patch', '--yes']],
  ['release', ['v1.0.0', '--yes']],
  ['release', ['nonsense'], 2],
  ['switch-env', ['both', '--version', 'v1.0.1', '--yes']],
  ['switch-env', ['status']],
  ['build-push', ['latest', '--yes']],
  ['backup', ['create']],
  ['backup', ['list']],
  ['backup', ['verify', '--all']],
  ['backup', ['prune', '--yes']],
  ['backup', ['schedule']],
  ['status', []],
  ['status', ['--record']],
  ['doctor', []],
  ['migrate', ['--status']],
];

test('each result fits its published schema', async (t) => {
  const project = await tinyProject(t);
  await project.edit('.gitignore', (ignored) => `${ignored}data/\nbackups/\n`);
  await project.edit('compose/docker-compose.yml', (services) =>
    services.replaceAll('    init: true\n', '    init: true\n    volumes: ["../data:/data"]\n'),
  );
  await configure(project, 'backup', `image = "${process.env.TEST_BASE_IMAGE ?? 'synapse-node:24'}"`);
  await project.write('data/notes.txt', 'kept\n');
  for (const [task, argv, code = 0] of RUNS) {
    await t.test(`${task} ${argv.join(' ')}`, async () => {
      if (argv.includes('--dry-run')) await project.commit('fix: a change');
      const outcome = await project.task(task, [...argv, '--json']);
      const result = outcome.json();
      const known = resultSchemas[task].parse(result);
      if (task !== 'doctor') assert.equal(outcome.code, code, outcome.stdout);
      assert.deepEqual([known.ok, known.task], [outcome.code === 0, task]);
      // Beside what is described, a new backup prints its manifest.
      if (argv[0] === 'create') return;
      const described = Object.keys(resultSchemas[task].shape);
      const others = Object.keys(result).filter((key) => !described.includes(key));
      assert.deepEqual(others, []);
    });
  }
});
