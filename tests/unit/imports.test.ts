// The layout's rules: imports run one way, files stay small enough to be read. Also `npm run check:imports`.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

function sources(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name));
}

/** Project files that a file imports, static and dynamic alike, as paths from the root. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((match) => match[1]!);
  return specifiers.map((specifier) => relative(ROOT, join(ROOT, dirname(file), specifier)));
}

const graph = new Map([...sources('tasks'), ...sources('service')].map((file) => [file, importsOf(file)]));
const isTask = (file: string) => /^tasks\/[^/]+\.ts$/.test(file);
const isLib = (file: string) => file.startsWith('tasks/lib/');
const DOOR = 'tasks/lib/mod.ts';

function edges(): [from: string, to: string][] {
  return [...graph].flatMap(([from, targets]) => targets.map((to): [string, string] => [from, to]));
}

function violations(isWrong: (from: string, to: string) => boolean): string[] {
  return edges().flatMap(([from, to]) => (isWrong(from, to) ? [`${from} imports ${to}`] : []));
}

test('tasks import the one door and nothing else', () => {
  assert.ok([...graph.keys()].filter(isTask).length >= 4, 'the tasks were found');
  assert.deepEqual(
    violations((from, to) => isTask(from) && to !== DOOR),
    [],
  );
});

test('nobody inside lib imports the door', () => {
  assert.deepEqual(
    violations((from, to) => isLib(from) && to === DOOR),
    [],
  );
});

test('lib takes nothing from the service but its configuration loader', () => {
  assert.deepEqual(
    violations((from, to) => isLib(from) && !isLib(to) && !to.startsWith('service/config/')),
    [],
  );
});

test('the service takes nothing from the tasks', () => {
  assert.deepEqual(
    violations((from, to) => from.startsWith('service/') && !to.startsWith('service/')),
    [],
  );
});

/** Left to right: a folder of lib takes from itself and from those to its left alone. */
const ORDER = ['', 'docker', 'setup', 'release', 'switch', 'backup', 'status', 'doctor', 'migrate'];
const LAST = ['status', 'doctor', 'migrate'];
const folderOf = (file: string) => /^tasks\/lib\/([^/]+)\//.exec(file)?.[1] ?? '';

test('a folder of lib imports from those to its left alone', () => {
  assert.deepEqual(
    [...graph.keys()].map(folderOf).filter((folder) => !ORDER.includes(folder)),
    [],
  );
  const isWrong = (from: string, to: string) => {
    const [own, other] = [folderOf(from), folderOf(to)];
    return (
      own !== other &&
      (ORDER.indexOf(other) > ORDER.indexOf(own) || (LAST.includes(own) && LAST.includes(other)))
    );
  };
  assert.deepEqual(
    violations((from, to) => isLib(from) && isLib(to) && from !== DOOR && isWrong(from, to)),
    [],
  );
});

test('there are no import cycles', () => {
  const finished = new Set<string>();
  const visit = (file: string, path: string[]): void => {
    if (finished.has(file)) return;
    assert.ok(!path.includes(file), `import cycle: ${[...path.slice(path.indexOf(file)), file].join(' → ')}`);
    for (const target of graph.get(file) ?? []) visit(target, [...path, file]);
    finished.add(file);
  };
  for (const file of graph.keys()) visit(file, []);
});

/** `file: line` of every place in tasks/ that matches. */
function places(pattern: RegExp): string[] {
  return [...graph.keys()]
    .filter((file) => file.startsWith('tasks/'))
    .flatMap((file) => {
      const lines = readFileSync(join(ROOT, file), 'utf8').split('\n');
      return lines.filter((line) => pattern.test(line)).map((line) => `${file}: ${line.trim()}`);
    });
}

test('only project.ts asks where its source is: the launcher runs a bundle that lies elsewhere', () => {
  // The backup program is a bundle of its own, which runs in a container.
  const allowed = /^tasks\/lib\/(project\.ts|backup\/program(\.ts|\/))/;
  assert.deepEqual(
    places(/import\.meta\.url/).filter((place) => !allowed.test(place)),
    [],
  );
});

test('every import exists', () => {
  assert.deepEqual(
    violations((_from, to) => !graph.has(to)),
    [],
  );
});
