// configs/release.toml and .env: every mistake is named by file, key and nearest valid key, all at once.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { TaskError } from '../../tasks/lib/errors.ts';
import { redact } from '../../tasks/lib/log.ts';
import {
  dataDirectory,
  imageReference,
  loadProject,
  portOf,
  registryReference,
} from '../../tasks/lib/project.ts';
import { planRelease } from '../../tasks/lib/release/plan.ts';
import { readRepository } from '../../tasks/lib/release/preflight.ts';
import { REPOSITORY, temporaryFolder } from '../tasks/processes.ts';

const TINY = readFileSync(join(REPOSITORY, 'tests/tasks/tiny-app/configs/release.toml'), 'utf8');

function projectFolder(t: TestContext, toml: string, dotenv = ''): string {
  const root = temporaryFolder(t);
  mkdirSync(join(root, 'configs/deep/er'), { recursive: true });
  writeFileSync(join(root, 'configs/release.toml'), toml);
  writeFileSync(join(root, '.env'), dotenv);
  return root;
}

async function refusal(t: TestContext, toml: string, dotenv = ''): Promise<TaskError> {
  const error = await loadProject(projectFolder(t, toml, dotenv)).catch((thrown) => thrown);
  assert(error instanceof TaskError, 'the project was accepted');
  assert.equal(error.exitCode, 2);
  return error;
}

test('this very project is valid, and so is the tests’ own', async (t) => {
  assert.equal((await loadProject(REPOSITORY)).project.name, 'synapse');
  assert.equal((await loadProject(projectFolder(t, TINY))).project.name, 'tiny');
});

test('.env beats release.toml; the project is found from a folder below', async (t) => {
  const root = projectFolder(t, TINY, 'TINY_PROD_PORT=9000\nTINY_DATA_DIR=/srv/x\n');
  const project = await loadProject(join(root, 'configs/deep/er'));
  assert.equal(project.root, root);
  assert.deepEqual([portOf(project, 'prod'), portOf(project, 'dev')], [9000, 8013]);
  assert.equal(dataDirectory(project), '/srv/x');
  assert.equal(imageReference(project, 'v1.0.0'), 'tiny:v1.0.0');
  assert.equal(registryReference(project, 'v1.0.0'), undefined);
  const pushed = { ...project, image: { ...project.image, registry: 'ghcr.io/me/' } };
  assert.equal(registryReference(pushed, 'v1.0.0'), 'ghcr.io/me/tiny:v1.0.0');
});

test('each mistake has its own words, exit 2', async (t) => {
  const replace = (from: string, to: string) => TINY.replace(from, to);
  const rows: [toml: string, message: RegExp, hint?: RegExp][] = [
    [`x = \n${TINY}`, /^configs\/release\.toml:\d+:\d+: not valid TOML: /, /toml\.io/],
    [replace('[health]', '[heath]'), /unknown key heath/, /did you mean health\?/],
    [replace('timeout = 8', 'time_out = 8'), /unknown key candidate\.time_out/, /did you mean timeout\?/],
    [replace('timeout = 8', 'colour = 8'), /unknown key candidate\.colour/, /valid: timeout/],
    [replace('port = 8013', 'port = "8013"'), /environments\.dev\.port is "8013"; expected number/],
    [replace('port = 8013', 'port = 70000'), /environments\.dev\.port is 70000; .*65535/],
    ...['http://pi.lan:5000', 'ghcr.io/Me', 'https://ghcr.io/me'].map((registry): [string, RegExp] => [
      replace('[image]', `[image]\nregistry = "${registry}"`),
      /image\.registry is ".*"; host\[:port\]\[\/path\] in lower case, without http/,
    ]),
    [replace('name = "tiny"\nbase', 'name = "Tiny"\nbase'), /image\.name is "Tiny"; a name in lower case/],
    [
      replace('name = "tiny"\nvariable', 'name = "Tiny App"\nvariable'),
      /project\.name is "Tiny App"; lower-case letters/,
    ],
    [replace('[backup]\ndirectory = "backups"', ''), /backup is missing; expected object/],
    [`${TINY}\n[release]\nchecks = ["npm test"]\n`, /release\.checks\.0 is "npm test"; expected array/],
  ];
  for (const [toml, message, hint] of rows) {
    assert.notEqual(toml, TINY);
    const error = await refusal(t, toml);
    assert.match(error.message, message);
    if (hint) assert.match(error.hint ?? '', hint);
  }
});

test('several mistakes are told together, each with its hint', async (t) => {
  const error = await refusal(
    t,
    TINY.replace('timeout = 8', 'time_out = 8').replace('port = 8012', 'port = 0'),
  );
  assert.match(error.message, /^configs\/release\.toml has 2 problems:\n {2}- .*\n/);
  assert.match(error.message, /unknown key candidate\.time_out\n {4}hint: did you mean timeout\?/);
  assert.match(error.message, /environments\.prod\.port is 0/);
});

test('a port in .env that is none is refused by its name', async (t) => {
  const error = await refusal(t, TINY, 'TINY_DEV_PORT=80a\n');
  assert.equal(error.message, '.env: TINY_DEV_PORT is "80a", expected a port number');
});

test('a folder without a project falls back to the one that the tasks belong to', async (t) => {
  assert.equal(`${(await loadProject(temporaryFolder(t))).root}/`, REPOSITORY);
});

test('a secret is redacted by its name or its place in a URL, in .env and in the files of the containers', async (t) => {
  const rows: [file: string, assigned: (value: string) => string][] = [
    ['.env', (value) => `SMTP_PASS=${value}`],
    ['.env', (value) => `DB_PWD=${value}`],
    ['.env', (value) => `SIGNING_KEY=${value}`],
    ['.env', (value) => `PROXY_AUTH=${value}`],
    ['.env', (value) => `MAIL_PASSPHRASE='${value}'`],
    ['.env', (value) => `DATABASE_URL=postgres://app:${value}@db:5432/app`],
    ['.env.dev', (value) => `export API_TOKEN="${value}"`],
    ['.env.prod', (value) => `DB_PASSWORD=${value}`],
    ['.env.prod', (value) => `no assignment\nCLIENT_SECRET: ${value}`],
    ['.env.prod', (value) => `CACHE_URL=redis://:${value}@cache`],
  ];
  const root = projectFolder(t, TINY);
  const valueAt = (index: number) => `hidden-value-${String.fromCharCode(97 + index)}`;
  for (const file of new Set(rows.map(([name]) => name))) {
    const lines = rows.map(([name, assigned], index) => (name === file ? assigned(valueAt(index)) : ''));
    writeFileSync(join(root, file), `${lines.join('\n')}\nMAX_TOKENS=plain-value\n`);
  }
  await loadProject(root);
  for (const [index, [file, assigned]] of rows.entries())
    assert.equal(redact(`<${valueAt(index)}>`), '<***>', `${file}: ${assigned('…')}`);
  assert.equal(redact('plain-value'), 'plain-value');
});

test('the sections of release.toml are those that the notes get', async (t) => {
  const root = projectFolder(t, `${TINY}\n[release.sections]\nNews = ["add"]\n`);
  const git = (...argv: string[]) =>
    execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@y', ...argv], { cwd: root });
  git('init', '--quiet', '--initial-branch=main');
  git('add', '--all');
  git('commit', '--quiet', '-m', 'add: a first one');
  const project = await loadProject(root);
  const flags = { push: false, deploy: false, edit: false };
  const request = { requested: 'auto', preid: undefined, ...flags, date: new Date() };
  const { entry } = await planRelease(project, await readRepository(project), request);
  assert.match(entry, /### News\n\n- a first one \(/);
});
