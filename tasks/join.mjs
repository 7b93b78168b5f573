// Joins all tasks with their libraries into one script, for tasks/start.mjs.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const WEEK_MS = 7 * 24 * 3600 * 1000;

/** The comments and imports that a file begins with. */
const HEAD = /^(?:\/\/.*\n|\n|import [^;]*;\n)*/;

/**
 * A task waits at its top, which only a module may: what comes after its imports becomes a function. The few libraries
 * that are required, for tsx's sake, are found by esbuild where `require` is no variable of the file.
 */
function asScript(text, path, isTask) {
  const inPlace = text
    .replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href))
    .replace(/^const require = createRequire\(.*\n/m, '');
  const [head] = HEAD.exec(inPlace);
  return isTask ? `${head}(async () => {\n${inPlace.slice(head.length)}\n})();` : inPlace;
}

/** Each source finds what lies beside it, and misses what is not there only when it asks for it: as by tsx. */
const likeInPlace = (root) => ({
  name: 'like-in-place',
  setup(builder) {
    builder.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const isTask = dirname(path) === join(root, 'tasks');
      return { contents: asScript(readFileSync(path, 'utf8'), path, isTask), loader: 'ts' };
    });
    builder.onResolve({ filter: /^\./ }, ({ path, importer }) => {
      if (!importer.startsWith(root) || importer.includes('node_modules')) return undefined;
      const file = resolve(dirname(importer), path);
      return existsSync(file) ? undefined : { path: pathToFileURL(file).href, external: true };
    });
  },
});

/** Wholly or not at all, power cuts included: another process may be doing the same, or starting from it. */
export function keep(path, bytes) {
  const unfinished = `${path}.${process.pid}.unfinished`;
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(unfinished, bytes, { flush: true });
    renameSync(unfinished, path);
  } catch {
    // It is made again.
    rmSync(unfinished, { force: true });
  }
}

/** What was not started for a week: node_modules may be that of several clones. */
function removeOld(cache) {
  for (const entry of readdirSync(cache)) {
    const directory = join(cache, entry);
    if (statSync(directory).mtimeMs < Date.now() - WEEK_MS)
      rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * A script that is a function of `require` and the name of the task to run, kept at `path`.
 * @throws where a source cannot be read
 */
export async function joinSources(tasks, { root, cache, path }) {
  const { build } = await import('esbuild');
  const imports = tasks.map((task) => `${JSON.stringify(task)}: () => import('./tasks/${task}.ts')`);
  const { outputFiles } = await build({
    absWorkingDir: root,
    stdin: { contents: `({ ${imports.join(', ')} })[task]();`, resolveDir: root },
    write: false,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    mainFields: ['module', 'main'],
    banner: { js: '(function (require, task) {' },
    footer: { js: '})' },
    plugins: [likeInPlace(root)],
    logLevel: 'silent',
  });
  const [{ contents }] = outputFiles;
  keep(path, contents);
  removeOld(cache);
  return Buffer.from(contents);
}
