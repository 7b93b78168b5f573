// .env.example names each variable that the tasks and the compose files read, with the default that they use. What
// would be lost: a setting that nobody can find, or one that no longer does anything.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const readAll = (folder: string, ending: string) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .map((name) => read(join(folder, name)))
    .join('\n');

const example = new Map(
  [...read('.env.example').matchAll(/^# ([A-Z_]+)=(\S*)/gm)].map(([, name, value]) => [name!, value!]),
);
/** Name → default, or undefined where compose has none. */
const composeVariables = new Map(
  [...readAll('compose', '.yml').matchAll(/\$\{([A-Z_]+)(?::-([^}]*))?\}/g)].map(([, name, value]) => [
    name!,
    value,
  ]),
);

/** Where the code reads, and release.toml names, a variable without its prefix. */
const PLACES: [text: string, pattern: RegExp][] = [
  [readAll('tasks', '.ts'), /variable(?:Name)?\(\w+, '([A-Z_]+)'\)/g],
  [read('configs/release.toml'), /(?:token|variable|models_variable) = "([A-Z_]+)"/g],
];

test('.env.example names what the tasks and the compose files read, and nothing else', () => {
  const suffixes = PLACES.flatMap(([text, pattern]) => [...text.matchAll(pattern)].map(([, name]) => name));
  const ownNames = [...read('tasks/lib/setup/setup.ts').matchAll(/\b(COMPOSE_[A-Z_]+): /g)].map(
    ([, name]) => name!,
  );
  const names = [...suffixes.map((name) => `SYNAPSE_${name}`), ...composeVariables.keys(), ...ownNames];
  assert.ok(suffixes.length > 10 && ownNames.length === 2, 'the places were found');
  assert.deepEqual([...example.keys()].sort(), [...new Set(names)].sort());
});

test('.env.example shows the defaults of the compose files', () => {
  const shown = [...composeVariables].filter(([name]) => name !== 'SYNAPSE_PROD_TAG');
  assert.deepEqual(
    shown.map(([name]) => [name, example.get(name)]),
    shown.map(([name, value]) => [name, value]),
  );
});
