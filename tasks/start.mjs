// What the npm scripts start: `node tasks/start.mjs TASK …` does what `npx tsx tasks/TASK.ts …` does, and starts in a
// third of the time. tsx takes each of a task's hundred files through its loader whenever the task starts. Here sources
// and libraries are joined once, and what V8 has compiled of them is kept as well, under node_modules, until a source
// is another.
// To look for a mistake start by tsx: its traces name the lines of the sources.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, utimesSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { constants, Script } from 'node:vm';
import { joinSources, keep } from './join.mjs';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const SOURCES = [
  'tasks',
  'service/config',
  'service/config.ts',
  'package.json',
  'package-lock.json',
  'node_modules/.package-lock.json',
  'tsconfig.json',
];
const CACHE = `${ROOT}node_modules/.cache/release-flow`;
/** So many runs of a task add what they had to compile: each of its commands needs other functions. */
const COMPILING_RUNS = 4;
const DIGEST_BYTES = 32;

/** Names of the tasks. */
function taskNames() {
  return readdirSync(`${ROOT}tasks`).flatMap((file) => (file.endsWith('.ts') ? [file.slice(0, -3)] : []));
}

/** A name for the sources as they are now, by their sizes and times: none has to be read for it. */
function fingerprint() {
  const hash = createHash('sha256').update(`${ROOT} ${process.version} ${process.arch}`);
  const look = (path) => {
    const stats = statSync(ROOT + path, { throwIfNoEntry: false });
    hash.update(`\0${path} ${stats?.size} ${stats?.mtimeMs} ${stats?.ctimeMs}`);
    if (stats?.isDirectory()) for (const entry of readdirSync(ROOT + path).sort()) look(`${path}/${entry}`);
  };
  SOURCES.forEach(look);
  return hash.digest('hex').slice(0, 16);
}

/** What a file has; undefined where it cannot be read. */
function contentOf(path) {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** The joined sources, joined now if need be; undefined where that, or keeping them, cannot be done. */
async function joinedSources(path) {
  const present = contentOf(path);
  try {
    const now = new Date();
    if (present) utimesSync(dirname(path), now, now);
    return present ?? (await joinSources(taskNames(), { root: ROOT, cache: CACHE, path }));
  } catch {
    // A folder that cannot be written, or a source that cannot be read: by tsx the task runs, or says why not.
    return present;
  }
}

const digestOf = (bytes) => createHash('sha256').update(bytes).digest();

/** What V8 compiled, if every byte of it is as it was written: V8 believes it, and would crash. */
function compiledIn(path) {
  const content = contentOf(path);
  const compiled = content?.subarray(DIGEST_BYTES);
  return compiled && digestOf(compiled).equals(content.subarray(0, DIGEST_BYTES)) ? compiled : undefined;
}

/** Runs a task of the joined sources, with what V8 compiled in earlier runs: compiling is half of a task's start. */
function runJoined(text, path, task) {
  const compiled = Array.from({ length: COMPILING_RUNS }, (_, run) => `${path}.${task}.${run + 1}`);
  const newest = compiled.findLast((file) => existsSync(file));
  const cachedData = newest && compiledIn(newest);
  const script = new Script(text.toString('latin1'), {
    filename: path,
    cachedData,
    // Else `import` would want a loader of ours.
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  const next = compiled[cachedData ? compiled.indexOf(newest) + 1 : 0];
  if (next && !script.cachedDataRejected)
    process.on('exit', () => {
      const code = script.createCachedData();
      keep(next, Buffer.concat([digestOf(code), code]));
      if (newest && newest !== next) rmSync(newest, { force: true });
    });
  script.runInThisContext()(createRequire(import.meta.url), task);
}

const [task, ...argv] = process.argv.slice(2);
if (!taskNames().includes(task)) {
  console.error(`Cannot start ${task ?? 'nothing'}: expected one of ${taskNames().join(', ')}`);
  process.exit(2);
}
const source = `${ROOT}tasks/${task}.ts`;
process.argv = [process.execPath, source, ...argv];
const path = `${CACHE}/${fingerprint()}/tasks.js`;
const joined = await joinedSources(path);
if (joined) runJoined(joined, path, task);
else {
  await import('tsx/esm');
  await import(pathToFileURL(source).href);
}
