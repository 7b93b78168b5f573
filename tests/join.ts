// Joins the test files of a run with the sources that they take, so that each starts as plain JavaScript: tsx needs half
// a second of processor for each file before its first test. What several share is joined once.
import { execFile } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { type BuildOptions, build, type Plugin } from 'esbuild';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Each source finds what lies beside it: as by tsx. */
const inPlace: Plugin = {
  name: 'in-place',
  setup(builder) {
    // No library comes here: they stay what they are.
    builder.onLoad({ filter: /\.ts$/ }, ({ path }) => ({
      contents: readFileSync(path, 'utf8').replaceAll(
        'import.meta.url',
        JSON.stringify(pathToFileURL(path).href),
      ),
      loader: 'ts',
    }));
  },
};

/** Below node_modules: from there the libraries are found. */
const DIRECTORY = join(ROOT, `node_modules/.cache/tests-${process.pid}`);

const OPTIONS: BuildOptions = {
  absWorkingDir: ROOT,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  packages: 'external',
  sourcemap: true,
  sourcesContent: false,
  plugins: [inPlace],
  logLevel: 'warning',
};

process.once('exit', () => rmSync(DIRECTORY, { recursive: true, force: true }));

/** What files of the project, named from its root, became: absolute paths, gone when this process ends. */
export async function joinTests(files: readonly string[]): Promise<string[]> {
  await build({
    ...OPTIONS,
    entryPoints: [...files],
    outdir: DIRECTORY,
    outbase: ROOT,
    outExtension: { '.js': '.mjs' },
    splitting: true,
  });
  return files.map((file) => join(DIRECTORY, file.replace(/\.ts$/, '.mjs')));
}

/** Bundles the service's programs as for the image, once: the folder, gone when this process ends. */
export async function bundleService(): Promise<string> {
  const folder = join(DIRECTORY, 'service');
  await promisify(execFile)(process.execPath, [
    join(ROOT, 'service/bundle.mjs'),
    join(folder, 'synapse.mjs'),
  ]);
  return folder;
}

/** Joins one module, which imports from the root: its URL, good until this process ends. */
export async function joinModule(contents: string): Promise<string> {
  const outfile = join(DIRECTORY, 'module.mjs');
  await build({ ...OPTIONS, stdin: { contents, resolveDir: ROOT, loader: 'ts' }, outfile });
  return pathToFileURL(outfile).href;
}
