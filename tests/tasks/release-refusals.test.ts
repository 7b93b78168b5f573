// What stops a release before anything is written, or asked of an engine: each row is a mistake, or a machine's state,
// and what would be lost without it. After each nothing has changed.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadProject } from '../../tasks/lib/project.ts';
import { newestRelease } from '../../tasks/lib/release/record.ts';
import { docker } from './processes.ts';
import { configure, type TestProject, tinyProject } from './project.ts';
import { errorOf, release, released } from './release-support.ts';
import { tinyBase } from './tiny-base.ts';

test('a command line that makes no sense is refused with what was meant', async (t) => {
  const project = await tinyProject(t);
  const before = await project.snapshot();
  const rows: [argv: string[], words: RegExp][] = [
    [['pach'], /did you mean patch\?/],
    [['patch', '--preid', 'rc'], /release -- prerelease --preid rc/],
    [['--notes-only', '--edit'], /--notes-only cannot be combined/],
    [['--notes-only', '--push'], /--notes-only cannot be combined/],
    [['--undo', 'v1.0.0', '--deploy'], /--undo cannot be combined/],
    [['--undo', 'v1.0.0', '--preid', 'rc'], /--undo cannot be combined/],
  ];
  for (const [argv, words] of rows) {
    const refused = await release(project, ...argv);
    assert.equal(refused.code, 2, `${argv.join(' ')}: ${refused.stderr}`);
    assert.match(`${errorOf(refused).message}\n${errorOf(refused).hint}`, words, argv.join(' '));
  }
  assert.deepEqual(await project.snapshot(), before);
  for (const prefix of ['app/v', 'app@', 'v..', '-v', 'v:']) {
    await project.edit('configs/release.toml', (text) => `${text}\n[release]\ntag_prefix = "${prefix}"\n`);
    const refused = await release(project, 'patch');
    assert.equal(refused.code, 2, prefix);
    assert.match(errorOf(refused).message, /tag_prefix .* a part of image tags/s, prefix);
    await project.git('checkout', '--quiet', '--', '.');
  }
});

interface Row {
  what: string;
  prepare: (project: TestProject) => Promise<unknown>;
  argv?: string[];
  code: string;
  words: RegExp;
}

const submodule = (project: TestProject) => {
  const source = join(project.directory, 'part');
  execFileSync('git', ['init', '--quiet', source]);
  const identity = ['-c', 'user.name=x', '-c', 'user.email=x@y'];
  execFileSync('git', ['-C', source, ...identity, 'commit', '--quiet', '--allow-empty', '-m', 'x']);
  return project.git('-c', 'protocol.file.allow=always', 'submodule', '--quiet', 'add', source, 'part');
};

const ROWS: Row[] = [
  {
    what: 'a lock of git: the release would be built, and then fail',
    prepare: (project) => project.write('.git/index.lock', ''),
    code: 'git-locked',
    words: /rm .*index\.lock/,
  },
  {
    what: 'a lock of the branch',
    prepare: (project) => project.write('.git/refs/heads/main.lock', ''),
    code: 'git-locked',
    words: /rm .*refs\/heads\/main\.lock/,
  },
  {
    what: 'a key that cannot sign',
    prepare: async (project) => {
      await project.git('config', 'gpg.format', 'ssh');
      await project.git('config', 'user.signingKey', join(project.directory, 'missing'));
      await project.git('config', 'tag.gpgSign', 'true');
    },
    code: 'cannot-sign',
    words: /missing/,
  },
  {
    what: 'a file that export-ignore keeps out of the build',
    prepare: (project) => project.commit('fix: attributes', { '.gitattributes': 'serve export-ignore\n' }),
    code: 'build-input-missing',
    words: /no serve \(export-ignore in \.gitattributes/,
  },
  {
    what: 'a file that is copied, and ignored by git',
    prepare: async (project) => {
      await project.write('local.json', '{}');
      await project.edit('.gitignore', (text) => `${text}\nlocal.json\n`);
      await project.edit('Dockerfile', (text) => text.replace('COPY serve', 'COPY local.json serve'));
      await project.commit('fix: copies more');
    },
    code: 'build-input-missing',
    words: /no local\.json \(it is not committed\)/,
  },
  {
    what: 'a submodule that is not checked out',
    prepare: async (project) => {
      await submodule(project);
      await project.commit('fix: a part');
      await project.git('submodule', '--quiet', 'deinit', '--force', 'part');
    },
    code: 'build-input-missing',
    words: /part \(a submodule .* git submodule update --init part\)/,
  },
  {
    what: 'notes in which the entry would not be found again',
    prepare: (project) => project.commit('docs: notes', { 'release-notes.md': '# Notes\n\n```\nopen\n' }),
    code: 'notes-form',
    words: /end inside a code block.*close it/s,
  },
  {
    what: 'a remote that does not answer',
    prepare: (project) => project.git('remote', 'set-url', 'origin', '/nowhere'),
    argv: ['--push'],
    code: 'remote-unreachable',
    words: /origin did not respond.*without --push/s,
  },
  {
    what: 'a registry that is down',
    prepare: (project) => configure(project, 'image', 'registry = "127.0.0.1:9"'),
    argv: ['--push'],
    code: 'registry-unreachable',
    words: /127\.0\.0\.1:9/,
  },
];

test('what stops a release', async (t) => {
  const project = await tinyProject(t);
  const head = await project.git('rev-parse', 'HEAD');
  for (const { what, prepare, argv = [], code, words } of ROWS) {
    await t.test(what, async () => {
      await prepare(project);
      const before = await project.snapshot();
      const refused = await release(project, 'patch', ...argv);
      assert.equal(refused.code, 1, refused.stderr);
      const { code: found, message, hint } = errorOf(refused);
      assert.equal(found, code, message);
      assert.match(`${message}\n${hint}`, words);
      assert.deepEqual(await project.snapshot(), before);
      for (const lock of ['index', 'refs/heads/main'])
        await rm(join(project.root, `.git/${lock}.lock`), { force: true });
      for (const setting of ['tag.gpgSign', 'gpg.format', 'user.signingKey'])
        await project.git('config', '--unset', setting).catch(() => {});
      await project.git('reset', '--quiet', '--hard', head);
      await project.git('remote', 'set-url', 'origin', project.remote);
      await project.git('push', '--quiet', '--force', 'origin', 'main');
      await project.git('clean', '--quiet', '-ffdx', '--exclude=.env', '--exclude=.synapse');
      await rm(join(project.root, '.git/modules'), { recursive: true, force: true });
    });
  }
});

test('tags without our record are history: no rollback to them is promised, and a patch may follow', async (t) => {
  const project = await tinyProject(t);
  await project.git('tag', 'v3.2.0');
  await project.git('tag', '-a', '-m', 'by hand', 'v3.1.0');
  const { root } = project;
  assert.equal(await newestRelease(await loadProject(root)), undefined, 'none of them can be run');
  await project.commit('feat!: other keys');
  const shown = await project.task('release', ['patch', '--notes-only']);
  assert.equal(shown.code, 0, shown.stderr);
  assert.match(shown.stdout, /^## \[v3\.2\.1\]/);
  assert.doesNotMatch(shown.stdout, /Roll back/);
  await project.git('remote', 'set-url', 'origin', '/nowhere');
  const planned = await project.task('release', ['patch', '--dry-run']);
  assert.match(planned.stderr, /3\.2\.1 has a breaking change since 3\.2\.0: .* major/);
  assert.match(
    planned.stderr,
    /origin did not respond; only local tags are checked/,
    'no error without --push',
  );
  for (const bump of ['major', 'prerelease'])
    assert.doesNotMatch(
      (await project.task('release', [bump, '--dry-run'])).stderr,
      /breaking change since/,
      bump,
    );
});

/** What a hook or a shell may have set: each would send git, the build or compose somewhere else. */
function redirections(elsewhere: string): Record<string, string> {
  execFileSync('git', ['init', '--quiet', '--bare', elsewhere]);
  const git = { GIT_DIR: elsewhere, GIT_WORK_TREE: elsewhere, GIT_INDEX_FILE: join(elsewhere, 'index') };
  const build = { DOCKER_DEFAULT_PLATFORM: 'linux/arm64', BUILDX_BUILDER: 'no-such-builder' };
  return { ...git, ...build, COMPOSE_FILE: '/none.yml', COMPOSE_PROJECT_NAME: 'other' };
}

test('the commit decides, not working tree or shell: notes outside a sparse checkout are kept', async (t) => {
  const project = await tinyProject(t);
  await configure(project, 'release', 'notes = "docs/notes.md"');
  await project.commit('docs: earlier', { 'docs/notes.md': '# Notes\n\n## [v0.9.0]\n\n- earlier\n' });
  await project.git('push', '--quiet', 'origin', 'main');
  await project.git('sparse-checkout', 'set', 'compose', 'configs');
  await assert.rejects(project.read('docs/notes.md'));
  await project.git('config', 'core.autocrlf', 'true');
  const elsewhere = join(project.directory, 'elsewhere.git');
  const env = redirections(elsewhere);
  const made = await project.task('release', ['patch', '--yes', '--json'], { env });
  assert.equal(made.code, 0, made.stderr);
  assert.equal(execFileSync('git', ['--git-dir', elsewhere, 'for-each-ref'], { encoding: 'utf8' }), '');
  const platform = await docker(
    'image',
    'inspect',
    '--format',
    '{{.Architecture}}',
    `${project.name}:v1.0.0`,
  );
  assert.equal(platform, process.arch.replace('x64', 'amd64'));
  const notes = await project.git('show', 'v1.0.0:docs/notes.md');
  assert.match(notes, /^# Notes\n\n## \[v1\.0\.0\][^\r]*## \[v0\.9\.0\]\n\n- earlier$/);
  assert.equal(await project.git('status', '--porcelain'), '');

  // A person's flag, and a commit on top: taking the release back looks at the commit, too.
  await project.git('sparse-checkout', 'disable');
  await project.commit('fix: on top', { note: 'x' });
  await project.git('update-index', '--skip-worktree', 'docs/notes.md');
  await rm(join(project.root, 'docs/notes.md'));
  const undone = await release(project, '--undo', 'v1.0.0');
  assert.equal(undone.code, 0, undone.stderr);
  assert.equal(await project.git('show', 'main:docs/notes.md'), '# Notes\n\n## [v0.9.0]\n\n- earlier');
});

test('a name that another image got during the build is not taken from it', async (t) => {
  const project = await tinyProject(t);
  const take = `["docker", "image", "tag", "${await tinyBase()}", "${project.name}:v1.0.0"]`;
  await configure(project, 'release', `hooks.before = [${take}]`);
  const before = await project.snapshot();
  const refused = await release(project, 'patch');
  assert.equal(errorOf(refused).code, 'image-exists', refused.stderr);
  assert.match((await project.snapshot()).images!, new RegExp(`^${project.name}:v1.0.0 \\S+$`));
  assert.deepEqual({ ...(await project.snapshot()), images: '' }, before);
});

test('a lock that a killed release left does not outlive it, wherever it died', async (t) => {
  const project = await tinyProject(t);
  for (const [index, step] of ['commit', 'refs/applied'].entries()) {
    await project.commit('fix: next', { note: step });
    const env = { RELEASE_FLOW_FAULT: `SIGKILL@release/${step}` };
    assert.equal((await project.task('release', ['patch', '--yes'], { env })).code, 137);
    for (const name of ['index', 'refs/heads/main']) await project.write(`.git/${name}.lock`, '');
    const again = await release(project, 'patch');
    assert.equal(again.code, 0, again.stderr);
    assert.equal(again.json().tag, `v1.0.${index}`);
  }
});

test('a withdrawn release stays withdrawn, and a remote that is ahead is seen before anything is done', async (t) => {
  const project = await tinyProject(t);
  const undo = () => release(project, '--undo', 'v1.0.0');
  const { commit } = await released(project, 'patch', '--push');
  await project.commit('fix: theirs', { note: 'theirs' });
  await project.git('push', '--quiet', 'origin', 'main');
  await project.git('reset', '--quiet', '--hard', String(commit));
  await project.git('reflog', 'expire', '--expire=now', '--all');
  await project.git('update-ref', '-d', 'refs/remotes/origin/main');
  await project.git('gc', '--quiet', '--prune=now');
  const before = await project.snapshot();
  const refused = await undo();
  assert.equal(errorOf(refused).code, 'behind-remote', refused.stderr);
  assert.deepEqual(await project.snapshot(), before);
  await project.git('pull', '--quiet', '--no-rebase', 'origin', 'main');
  const undone = await undo();
  assert.equal(undone.code, 0, undone.stderr);
  assert.equal(undone.json().outcome, 'withdraw');
  const after = await project.snapshot();
  assert.equal(errorOf(await undo()).code, 'already-withdrawn');
  assert.deepEqual(await project.snapshot(), after);
  assert.equal((await release(project, 'patch')).json().tag, 'v1.0.1');
});
