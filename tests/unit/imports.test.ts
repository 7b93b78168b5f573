// The layout's rules: imports run one way, files stay small enough to be read. Also `npm run check:imports`.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { REPOSITORY as ROOT } from '../tasks/processes.ts';

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

/** Left to right: a folder of lib takes from itself and from those to its left alone. */
const ORDER = ['', 'docker', 'setup', 'release', 'switch', 'backup', 'status', 'doctor', 'migrate'];
const LAST = ['status', 'doctor', 'migrate'];
const folderOf = (file: string) => /^tasks\/lib\/([^/]+)\//.exec(file)?.[1] ?? '';

function isToTheRight(from: string, to: string): boolean {
  const [own, other] = [folderOf(from), folderOf(to)];
  const isOutside = !isLib(from) || !isLib(to) || from === DOOR || own === other;
  return (
    !isOutside && (ORDER.indexOf(other) > ORDER.indexOf(own) || (LAST.includes(own) && LAST.includes(other)))
  );
}

const RULES: [name: string, isBroken: (from: string, to: string) => boolean][] = [
  ['tasks import the one door and nothing else', (from, to) => isTask(from) && to !== DOOR],
  ['nobody inside lib imports the door', (from, to) => isLib(from) && to === DOOR],
  [
    'lib takes nothing from the service but its configuration loader',
    (from, to) => isLib(from) && !isLib(to) && !to.startsWith('service/config/'),
  ],
  [
    'the service takes nothing from the tasks',
    (from, to) => from.startsWith('service/') && !to.startsWith('service/'),
  ],
  ['a folder of lib imports from those to its left alone', isToTheRight],
];

for (const [name, isBroken] of RULES) {
  test(name, () => {
    const edges = [...graph].flatMap(([from, targets]) => targets.map((to) => [from, to] as const));
    const broken = edges.filter(([from, to]) => isBroken(from, to));
    assert.deepEqual(
      broken.map(([from, to]) => `${from} imports ${to}`),
      [],
    );
  });
}

test('tasks and folders are the known ones', () => {
  assert.ok([...graph.keys()].filter(isTask).length >= 4, 'the tasks were found');
  assert.deepEqual(
    [...graph.keys()].map(folderOf).filter((folder) => !ORDER.includes(folder)),
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

test('only project.ts asks where its source is: the launcher runs a bundle that lies elsewhere', () => {
  // The backup program is a bundle of its own, which runs in a container.
  const allowed = /^tasks\/lib\/(project\.ts|backup\/program(\.ts|\/))/;
  const asks = (file: string) => readFileSync(join(ROOT, file), 'utf8').includes('import.meta.url');
  assert.deepEqual(
    [...graph.keys()].filter((file) => file.startsWith('tasks/') && !allowed.test(file) && asks(file)),
    [],
  );
});
