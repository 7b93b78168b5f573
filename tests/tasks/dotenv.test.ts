// `.env` means to the tasks exactly what it means to compose: each form is read by both alike, or refused by both.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseDotenv } from '../../tasks/lib/dotenv.ts';

const FORMS = JSON.parse(readFileSync(new URL('dotenv-forms.json', import.meta.url), 'utf8')) as string[];
/** What the shell says, for both. */
const SHELL = { S: 'shell', E: '' };
const NAMES = ['A', 'B', 'C', 'KEY'];

type Read = Record<string, string> | 'refused';

function readByTasks(form: string): Read {
  try {
    const variables = parseDotenv(form);
    return Object.fromEntries(NAMES.map((name) => [name, variables[name] ?? 'unset']));
  } catch {
    return 'refused';
  }
}

function readByCompose(folder: string, form: string): Read {
  writeFileSync(join(folder, 'env'), form);
  const files = ['--env-file', join(folder, 'env'), '--file', join(folder, 'compose.yml')];
  const env = { PATH: process.env.PATH, HOME: folder, ...SHELL };
  const argv = ['compose', '--project-name', 'x', ...files, 'config', '--format', 'json'];
  const found = spawnSync('docker', argv, { encoding: 'utf8', env });
  if (found.status !== 0) return 'refused';
  return JSON.parse(found.stdout.replaceAll('$$', '$')).services.app.environment;
}

test(`${FORMS.length} forms of .env are read as compose reads them, or refused as it refuses them`, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'dotenv-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const environment = NAMES.map((name) => `${name}: "\${${name}-unset}"`).join(', ');
  const app = `services: { app: { image: busybox, environment: { ${environment} } } }\n`;
  writeFileSync(join(folder, 'compose.yml'), app);
  Object.assign(process.env, SHELL);
  t.after(() => {
    for (const name of Object.keys(SHELL)) delete process.env[name];
  });
  assert.ok(FORMS.length >= 60);
  const differing = FORMS.map(
    (form) => [form, readByTasks(form), readByCompose(folder, form)] as const,
  ).filter(([, tasks, compose]) => JSON.stringify(tasks) !== JSON.stringify(compose));
  assert.equal(differing.map((one) => JSON.stringify(one)).join('\n'), '');
});
