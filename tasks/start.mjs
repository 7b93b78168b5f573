// What the npm scripts start: `node tasks/start.mjs TASK …` does what `npx tsx tasks/TASK.ts …` does, sooner. It bundles
// the task once, keeps the bundle under node_modules/.cache until a source is newer, and imports it.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const SOURCES = ['tasks', 'service/config', 'package.json', 'node_modules/.package-lock.json'];
// Bundled libraries need `require`; tasks/lib/project.ts, and nothing else, asks where its source is.
const BANNER = `import * as MODULE from 'node:module'; import * as URLS from 'node:url';
const require = MODULE.createRequire(import.meta.url);
const PROJECT_URL = new URL('lib/project.ts', URLS.pathToFileURL(process.argv[1])).href;`;

function newest(path) {
  const stats = statSync(path, { throwIfNoEntry: false });
  const inside = stats?.isDirectory() ? readdirSync(path).map((entry) => newest(join(path, entry))) : [];
  return Math.max(stats?.mtimeMs ?? 0, ...inside);
}

async function bundled(source, name) {
  const path = join(ROOT, 'node_modules/.cache/release-flow', name);
  if (newest(path) > Math.max(...SOURCES.map((one) => newest(join(ROOT, one))))) return path;
  const { build } = await import('esbuild');
  const outfile = `${path}.${process.pid}`;
  const target = { platform: 'node', target: 'node20', format: 'esm', mainFields: ['module', 'main'] };
  const external = ['esbuild'];
  const output = { banner: { js: BANNER }, define: { 'import.meta.url': 'PROJECT_URL' }, outfile };
  await build({ entryPoints: [source], bundle: true, external, ...target, ...output, logLevel: 'silent' });
  renameSync(outfile, path);
  return path;
}

const [name = '', ...argv] = process.argv.slice(2);
const source = join(ROOT, 'tasks', `${name}.ts`);
if (!existsSync(source)) process.exit(console.error(`There is no task named "${name}"`) ?? 2);
process.argv = [process.execPath, source, ...argv];
const clone = createHash('sha256').update(ROOT).digest('hex').slice(0, 8);
const path = await bundled(source, `${name}-${clone}.mjs`).catch(() => import('tsx/esm').then(() => source));
await import(pathToFileURL(path).href);
