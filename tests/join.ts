// Joins the test files of a run with the sources that they take, so that each starts as plain JavaScript: tsx needs half
// a second of processor for each file before its first test. What several share is joined once.
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';

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

/** What files of the project, named from its root, became: absolute paths, gone when this process ends. */
export async function joinTests(files: readonly string[]): Promise<string[]> {
  // Below node_modules: from there the libraries are found.
  const directory = join(ROOT, `node_modules/.cache/tests-${process.pid}`);
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  await build({
    absWorkingDir: ROOT,
    entryPoints: [...files],
    outdir: directory,
    outbase: ROOT,
    bundle: true,
    splitting: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    packages: 'external',
    outExtension: { '.js': '.mjs' },
    sourcemap: true,
    sourcesContent: false,
    plugins: [inPlace],
    logLevel: 'warning',
  });
  return files.map((file) => join(directory, file.replace(/\.ts$/, '.mjs')));
}
