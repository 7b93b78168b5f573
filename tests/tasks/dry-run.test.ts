// Every task and sub-command under --dry-run, on a real engine: nothing that exists changes, and no command is run but
// those that only read. What would be lost: the reason to try a command before running it.
import assert from 'node:assert/strict';
import { appendFile, chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { tinyLegacy, treeOf } from './legacy.ts';
import { docker, runProcess } from './processes.ts';
import { configure, REPOSITORY, START, type TestProject } from './project.ts';
import { startRegistry } from './registry.ts';

/** Exit code 0, unless the row names another one. */
type Row = [task: string, argv: string, code?: number];

const OLD_SERVICE_RUNS: Row[] = [
  ['setup', ''],
  ['up', ''],
  ['release', 'auto'],
  ['build-push', 'latest'],
  ['migrate', ''],
  ['migrate', '--status'],
  ['migrate', '--rollback'],
];

const BOTH_RUN: Row[] = [
  ['setup', ''],
  ['up', ''],
  ['release', 'patch'],
  ['release', 'prerelease --preid rc'],
  ['release', 'minor --push --deploy'],
  ['release', 'major --edit'],
  ['release', 'patch --notes-only'],
  ['release', '--undo v1.0.1'],
  ['build-push', 'latest'],
  ['build-push', 'latest --push --platform linux/amd64'],
  ['build-push', 'v1.0.0 --no-push'],
  ['switch-env', 'dev'],
  ['switch-env', 'prod --version v1.0.1 --wait 5'],
  ['switch-env', 'prod --version previous', 1],
  ['switch-env', 'both'],
  ['switch-env', 'none'],
  ['switch-env', 'status'],
  ['migrate', ''],
  ['migrate', '--rollback'],
  ['backup', 'create'],
  ['backup', 'create --rehearse --wait 5'],
  ['backup', 'list'],
  ['backup', 'verify --all'],
  ['backup', 'restore latest'],
  ['backup', 'restore latest --to TO'],
  ['backup', 'prune'],
  ['backup', 'schedule --every hourly'],
  ['backup', 'schedule --install'],
  ['backup', 'schedule --uninstall'],
  ['status', ''],
  ['status', '--html page.html'],
  ['status', '--record --heal'],
  ['doctor', '', 1],
  ['doctor', '--live', 1],
  ['doctor', '--config dev', 2],
];

/** Each for a reason: it never ends, or needs a second engine or a swarm. */
const NOT_TRIED = ['--watch', '--context', '--engine'];
const EVERYWHERE = ['--dry-run', '--yes', '--json', '--quiet', '--verbose', '--help'];

/** What docker and git are asked without changing anything. */
const READING = [
  /^docker (version|info|inspect|ps|images|logs|port|context (inspect|ls|show)|system dial-stdio)\b/,
  /^docker (image|container|network|volume|buildx) (inspect|ls)\b/,
  /^docker (service ps|(compose|buildx) version)\b/,
  /^docker compose .*\b(config|ps|ls)\b/,
  /^docker buildx imagetools inspect\b/,
  // The backup program, whose command is in the container's name.
  /^docker run --rm .*--name \S+-backup-(list|verify-file|inspect|measure)-/,
  /^git (rev-parse|rev-list|for-each-ref|status|ls-files|ls-tree|ls-remote|cat-file|log|show|merge-base|var)\b/,
  /^git (check-attr|check-ignore|check-ref-format|diff|diff-index|diff-tree|describe|merge-tree|version)\b/,
  /^git (config .*--get(-regexp)? |config --list|remote get-url |symbolic-ref --short .*HEAD$|read-tree -n |push .*--dry-run)/,
  /^crontab -l$/,
];

/** A project whose `docker`, `git` and `crontab` write down how they are called. */
async function watched(t: TestContext, project: TestProject) {
  const bin = join(project.directory, 'bin');
  const log = join(project.directory, 'bin.log');
  await mkdir(bin);
  for (const name of ['docker', 'git']) {
    const { stdout } = await runProcess('sh', ['-c', `command -v ${name}`]);
    const record = `line=$(printf '%s' "${name} $*" | tr '\\n' ' '); printf '%s\\n' "$line" >> ${log}`;
    await writeFile(join(bin, name), `#!/bin/sh\n${record}\nexec ${stdout.trim()} "$@"\n`);
  }
  await writeFile(join(bin, 'crontab'), `#!/bin/sh\necho "crontab $*" >> ${log}\n[ "$1" = -l ] || exit 9\n`);
  for (const name of await readdir(bin)) await chmod(join(bin, name), 0o755);
  t.diagnostic(`commands: ${log}`);
  return {
    env: { PATH: `${bin}:${process.env.PATH}`, EDITOR: 'false' },
    commands: async () => (await readFile(log, 'utf8').catch(() => '')).trim().split('\n').filter(Boolean),
    forget: () => writeFile(log, ''),
  };
}

/** The command without the options before its name. */
function bare(line: string): string {
  return line.replace(
    /^(docker|git)( (-c|-C|--context|--host|--git-dir|--work-tree) \S+| --[\w-]+(=\S*)?| -p)+ /,
    '$1 ',
  );
}

/** Everything that the project has: its files and git's refs, its backups, what the engine has of it. */
async function world(project: TestProject) {
  const files = await treeOf(project.directory);
  const isOurs = (path: string) => !/^\/(bin\.log$|clone\/\.git\/index$)/.test(path);
  // Not all images: one that another test removes meanwhile is an error of the whole list.
  const names = [project.name, `*/${project.name}`, `rag-mcp-${project.name}`];
  const ours = names.flatMap((name) => ['--filter', `reference=${name}`]);
  const listed = async (...argv: string[]) =>
    (await docker(...argv, '--no-trunc'))
      .split('\n')
      .filter((line) => line.includes(project.name))
      .sort();
  return {
    files: Object.fromEntries(Object.entries(files).filter(([path]) => isOurs(path))),
    refs: await project.git('for-each-ref'),
    containers: await listed(
      'ps',
      '--all',
      '--format',
      '{{.ID}} {{.Names}} {{.State}} {{.Image}} {{.Labels}}',
    ),
    images: await listed('images', ...ours, '--format', '{{.ID}} {{.Repository}}:{{.Tag}} {{.Digest}}'),
    networks: await listed('network', 'ls', '--format', '{{.ID}} {{.Name}}'),
    volumes: (await docker('volume', 'ls', '--format', '{{.Name}}'))
      .split('\n')
      .filter((name) => name.includes(project.name)),
  };
}

test('a dry run of anything changes nothing, and acts by no command', async (t) => {
  const registry = await startRegistry(t);
  const old = await tinyLegacy(t, { isReleased: false });
  const { project } = old;
  await configure(project, 'image', `registry = "${registry.address}"`);
  const { env, commands, forget } = await watched(t, project);

  const dryRuns = async (rows: readonly Row[]) => {
    let before = await world(project);
    for (const [task, argv, code = 0] of rows)
      await t.test(`${task} ${argv}`, async () => {
        await forget();
        const places: Record<string, string> = { TO: join(project.directory, 'restored') };
        const words = argv
          .split(' ')
          .filter(Boolean)
          .map((word) => places[word] ?? word);
        const outcome = await project.task(task, [...words, '--dry-run', '--json'], { env });
        assert.equal(outcome.code, code, outcome.stderr + outcome.stdout);
        assert.equal(outcome.json().dryRun, true);
        const acting = (await commands()).map(bare).filter((line) => !READING.some((one) => one.test(line)));
        assert.deepEqual(acting, [], outcome.stderr);
        const after = await world(project);
        const [then, now] = [before, after];
        before = after;
        assert.deepEqual(now, then, outcome.stderr);
      });
  };

  await dryRuns(OLD_SERVICE_RUNS);
  for (const [task, ...argv] of [['release', 'patch'], ['migrate']] as const) {
    const done = await project.task(task, [...argv, '--yes', '--json']);
    assert.equal(done.code, 0, done.stderr);
  }
  await project.commit('fix: something');
  const done = await project.task('release', ['patch', '--yes', '--json']);
  assert.equal(done.code, 0, done.stderr);
  await project.commit('feat: more');
  // Something for setup to do.
  await chmod(join(project.root, '.env'), 0o644);
  await appendFile(join(project.root, '.env'), 'TINY_CPUS=512\n');
  await dryRuns(BOTH_RUN);
});

test('every task and every flag is tried', async () => {
  const rows = [...OLD_SERVICE_RUNS, ...BOTH_RUN];
  const names = (await readdir(join(REPOSITORY, 'tasks'))).filter((name) => name.endsWith('.ts'));
  for (const name of names.map((file) => file.slice(0, -'.ts'.length))) {
    if (name === 'schemas') continue;
    const tried = rows.filter(([task]) => task === name).flatMap(([, argv]) => argv.split(' '));
    const { stdout } = await runProcess(process.execPath, [START, name, '--help']);
    const flags = [...stdout.matchAll(/^ +(?:-\w, )?(--[\w-]+)/gm)].map(([, flag]) => flag!);
    const [, words = ''] = /^Usage: \S+ \S+ \[(\w+\|[\w|.-]+)\]/m.exec(stdout) ?? [];
    const wanted = [...flags, ...words.split('|').filter((word) => /^[a-z]+$/.test(word))];
    assert.deepEqual(
      wanted.filter((one) => ![...tried, ...NOT_TRIED, ...EVERYWHERE].includes(one)),
      [],
      name,
    );
    assert.ok(
      rows.some(([task]) => task === name),
      name,
    );
  }
});

/** A container that never starts: the one way to look into a directory of another machine. */
const NEVER_STARTED = /^tasks\/lib\/switch\/checks\.ts: docker (create|cp|rm) /;

test('no command that changes something goes through probe or read, whose commands a dry run carries out', async () => {
  const names = await readdir(join(REPOSITORY, 'tasks'), { recursive: true });
  const found: string[] = [];
  for (const name of names.filter((file) => file.endsWith('.ts'))) {
    const text = await readFile(join(REPOSITORY, 'tasks', name), 'utf8');
    for (const [, program, argv = ''] of text.matchAll(
      /\b(?:probe|read|stream|connect)\(\s*(docker|git|gitIn)\(((?:[^()]|\([^()]*\))*)\)/g,
    )) {
      const words = argv.match(/'[^']*'|\.\.\.\w+/g)?.map((word) => word.replaceAll("'", '')) ?? [];
      found.push(`tasks/${name}: ${program === 'docker' ? program : 'git'} ${words.join(' ')} `);
    }
  }
  assert.ok(found.length > 30, 'they were found');
  // What is put together elsewhere is seen by the dry runs above.
  const isReading = (line: string) =>
    READING.some((one) => one.test(bare(line.replace(/^\S+: /, '')))) ||
    NEVER_STARTED.test(line) ||
    /: \w+ \.\.\./.test(line);
  assert.deepEqual(
    found.filter((line) => !isReading(line)),
    [],
  );
});
