// What the npm scripts start: `node tasks/start.mjs TASK …` does what `npx tsx tasks/TASK.ts …` does, and starts in
// half the time. tsx takes each of a task's hundred files through its loader whenever the task starts. Here esbuild,
// which tsx works with too, joins them once; the result stays under node_modules until one of the sources is another.
// To look for a mistake start by tsx: its traces name the lines of the sources.
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const TASKS = join(ROOT, 'tasks');
const SOURCES = [
  'tasks',
  'service/config',
  'service/config.ts',
  'package.json',
  'tsconfig.json',
  'node_modules/esbuild/package.json',
];
const CACHE = join(ROOT, 'node_modules/.cache/release-flow');
const WEEK_MS = 7 * 24 * 3600 * 1000;

/** Names of the tasks. */
function taskNames() {
  return readdirSync(TASKS).flatMap((file) => (file.endsWith('.ts') ? [file.slice(0, -3)] : []));
}

/** A name for the sources as they are now, by their sizes and times: none has to be read for it. */
function fingerprint() {
  const hash = createHash('sha256').update(ROOT);
  const look = (path) => {
    const stats = statSync(join(ROOT, path), { throwIfNoEntry: false });
    hash.update(`\0${path} ${stats?.size} ${stats?.mtimeMs} ${stats?.ctimeMs}`);
    if (stats?.isDirectory())
      for (const entry of readdirSync(join(ROOT, path)).sort()) look(join(path, entry));
  };
  SOURCES.forEach(look);
  return hash.digest('hex').slice(0, 16);
}

/** Each source finds what lies beside it, and misses what is not there only when it asks for it: as by tsx. */
const likeInPlace = {
  name: 'like-in-place',
  setup(builder) {
    builder.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const text = readFileSync(path, 'utf8');
      const place = JSON.stringify(pathToFileURL(path).href);
      return { contents: text.replaceAll('import.meta.url', place), loader: 'ts' };
    });
    builder.onResolve({ filter: /^\./ }, ({ path, importer }) => {
      const file = resolve(dirname(importer), path);
      return importer === '' || existsSync(file)
        ? undefined
        : { path: pathToFileURL(file).href, external: true };
    });
  },
};

/** Wholly or not at all: another process may be doing the same. */
async function joinSources(directory) {
  const unfinished = `${directory}.${process.pid}`;
  mkdirSync(unfinished, { recursive: true });
  try {
    const { build } = await import('esbuild');
    await build({
      absWorkingDir: ROOT,
      entryPoints: taskNames().map((task) => `tasks/${task}.ts`),
      outdir: unfinished,
      bundle: true,
      splitting: true,
      packages: 'external',
      platform: 'node',
      target: 'node20',
      format: 'esm',
      plugins: [likeInPlace],
      logLevel: 'silent',
    });
    renameSync(unfinished, directory);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}

/** What was not started for a week: a task that runs may still load a part of itself. */
function removeOld() {
  for (const entry of readdirSync(CACHE)) {
    const path = join(CACHE, entry);
    if (statSync(path).mtimeMs < Date.now() - WEEK_MS) rmSync(path, { recursive: true, force: true });
  }
}

const [name, ...argv] = process.argv.slice(2);
if (!taskNames().includes(name)) {
  console.error(`Cannot start ${name ?? 'nothing'}: expected one of ${taskNames().join(', ')}`);
  process.exit(2);
}
const source = join(TASKS, `${name}.ts`);
process.argv = [process.execPath, source, ...argv];
const directory = join(CACHE, fingerprint());
try {
  if (!existsSync(directory)) {
    await joinSources(directory);
    removeOld();
  }
  const now = new Date();
  utimesSync(directory, now, now);
} catch {
  // A folder that cannot be written, or a source that cannot be read: by tsx it runs, or says why not.
}
const joined = join(directory, `${name}.js`);
if (!existsSync(joined)) await import('tsx/esm');
await import(pathToFileURL(existsSync(joined) ? joined : source).href);
