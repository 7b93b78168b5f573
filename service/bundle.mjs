// Bundles the service with its libraries, so that the image needs no node_modules.
// Usage: node service/bundle.mjs [outfile]. The same sources always give the same bytes.

import { basename, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const outfile = process.argv[2] ?? 'dist/synapse.mjs';
const outdir = dirname(outfile);

// CommonJS libraries in an ES module bundle call `require` for Node's own modules.
const banner = `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`;

/** The SDK imports a JSON Schema validator that mcp/server.ts replaces: a third of the bundle, 5 MB of memory. */
const withoutAjv = {
  name: 'without-ajv',
  setup(builder) {
    builder.onLoad({ filter: /sdk\/dist\/esm\/validation\/ajv-provider\.js$/ }, () => ({
      contents: 'export class AjvJsonSchemaValidator {}',
    }));
  },
};

/**
 * Node's own modules by `require`: an import reads all that a module exports, and node:http then loads an unused HTTP
 * client, which takes as long as the rest of the health check.
 */
const builtinsRequired = {
  name: 'builtins-required',
  setup(builder) {
    builder.onResolve({ filter: /^node:/ }, ({ path, kind }) =>
      kind === 'require-call' ? { path, external: true } : { path, namespace: 'builtin' },
    );
    builder.onLoad({ filter: /.*/, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = require(${JSON.stringify(path)});`,
    }));
  },
};

const options = {
  absWorkingDir: root,
  outdir,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  mainFields: ['module', 'main'],
  minify: true,
  keepNames: true,
  legalComments: 'none',
  banner: { js: banner },
  plugins: [withoutAjv, builtinsRequired],
  metafile: true,
};

// In several files, so that the health check does not load the service.
const name = basename(outfile, '.mjs');
const { metafile } = await build({ ...options, entryPoints: { [name]: 'service/main.ts' }, splitting: true });
const bytes = Object.values(metafile.outputs).reduce((sum, output) => sum + output.bytes, 0);
console.log(`${outfile}: ${(bytes / 1024 / 1024).toFixed(2)} MB`);
