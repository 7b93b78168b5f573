// The program that backs data up and brings it back, inside a container on the engine's machine: the same kernel and user
// as the writers open the databases, wherever the engine is. One request, a line of JSON on stdin; one answer, JSON on
// stdout, whole before the process ends; progress, lines of JSON on stderr. While stdin is open the task is there: when it
// dies, this ends, and cleans up.

import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { copy, inventory, measure, sample } from './compare.ts';
import { create } from './create.ts';
import { lockDirectory } from './databases.ts';
import {
  becomeArchivist,
  clearLeftovers,
  freeBytes,
  listArchives,
  type Owner,
  parseName,
  readRecord,
  removeArchives,
  scratchPath,
  sync,
  writeRecord,
} from './directory.ts';
import { BackupError, failureOf, keep, unfinishedPath } from './report.ts';
import {
  finishSwap,
  inspectPlace,
  proveArchive,
  type Swap,
  stagingOf,
  swapBack,
  swapIn,
  unpackArchive,
  type Verdict,
  verifyFile,
} from './restore.ts';

interface Place {
  backups: string;
  project: string;
}

/** Becomes whoever makes the archives, locks the directory and clears what a killed run left; false if there is none. */
function takeDirectory({ backups, project }: Place): boolean {
  becomeArchivist(backups, project);
  if (listArchives(backups, project).length === 0) return false;
  lockDirectory(backups, project);
  clearLeftovers(backups, project);
  return true;
}

/** Verifies archives of the backup directory, by name; null: all of them. */
async function verify({ backups, project, archives }: Place & { archives: string[] | null }) {
  const verdicts: Verdict[] = [];
  if (!takeDirectory({ backups, project })) return { verdicts };
  for (const archive of archives ?? listArchives(backups, project).map((listed) => listed.archive)) {
    if (!parseName(project, archive))
      throw new BackupError('usage', `${archive} is not the name of an archive`);
    verdicts.push(await proveArchive(backups, project, archive));
  }
  return { verdicts };
}

function list({ backups, project }: Place) {
  becomeArchivist(backups, project);
  return { archives: listArchives(backups, project), free: freeBytes(backups) };
}

/** Removes archives that have a record of ours; anything else is refused. */
function remove({ backups, project, archives }: Place & { archives: readonly string[] }) {
  if (!takeDirectory({ backups, project })) return { removed: [] };
  const present = new Set(listArchives(backups, project).map(({ archive }) => archive));
  const wanted = archives.filter((archive) => present.has(archive));
  const foreign = wanted.find((archive) => readRecord(backups, archive)?.source !== 'created');
  if (foreign) throw new BackupError('foreign', `${foreign} was not created here and is not removed`);
  removeArchives(backups, wanted);
  return { removed: wanted };
}

/** Removes the directory of a rehearsal, and writes into the archive's record that it was `started`. */
function endRehearsal({ backups, project, name, started }: Place & { name: string; started?: string }) {
  if (!name.startsWith(`.${project}-scratch-`) || name.includes('/'))
    throw new BackupError('usage', `${name} is not a scratch directory`);
  rmSync(join(backups, name), { recursive: true, force: true });
  if (started === undefined) return {};
  becomeArchivist(backups, project);
  const record = readRecord(backups, started);
  if (!record?.proof) throw new BackupError('not-proven', `${started} is not verified`);
  writeRecord(backups, { ...record, proof: { ...record.proof, rehearsed: new Date().toISOString() } });
  return {};
}

/** A restore in place, of which each act is a command: places below `root`, e.g. `data`. */
interface InPlace {
  root: string;
  places: string[];
  id: string;
  /** Paths that one of the archives does not hold: they stay. */
  stays: string[];
}

/** Unpacks beside what is there, in the places themselves. */
function unpackInPlace({ archive, root, places, id }: InPlace & { archive: string }) {
  const owners: Record<string, Owner> = {};
  for (const place of places) {
    const { entries, owner } = inspectPlace(join(root, place));
    if (entries > 0) owners[place] = owner;
  }
  const targets = places.map((place) => [place, stagingOf(join(root, place), id)]);
  return unpackArchive(archive, Object.fromEntries(targets), owners);
}

function swaps({ root, places, id, stays }: InPlace): Swap[] {
  return places.map((place) => {
    const inside = stays.filter((path) => path.startsWith(`${place}/`));
    return { place: join(root, place), id, stays: inside.map((path) => path.slice(place.length + 1)) };
  });
}

interface UnpackTo {
  archive: string;
  places: string[];
  parent: string;
  name: string;
}

/** Unpacks to a directory that has its name only when it is complete; several places side by side in it. */
async function unpackTo({ archive, places, parent, name }: UnpackTo) {
  const draft = unfinishedPath(join(parent, `.release-flow-${name}-new`));
  rmSync(draft, { recursive: true, force: true });
  const targets = places.map((place) => [place, places.length > 1 ? join(draft, place) : draft]);
  const unpacked = await unpackArchive(archive, Object.fromEntries(targets));
  renameSync(draft, join(parent, name));
  keep(draft);
  sync(parent);
  return unpacked;
}

/** What the program does. It takes plain options and returns a plain result: JSON. */
const COMMANDS = {
  create,
  verify,
  list,
  remove,
  'verify-file': ({ path, backups, project }: Partial<Place> & { path: string }) =>
    verifyFile(path, backups && project && scratchPath(backups, project)),
  inspect: ({ root, places }: Pick<InPlace, 'root' | 'places'>) =>
    places.map((place) => inspectPlace(join(root, place))),
  'unpack-in-place': unpackInPlace,
  'unpack-to': unpackTo,
  'swap-in': (options: InPlace) => ({ done: swaps(options).map(swapIn).length }),
  'swap-back': (options: InPlace) => ({ done: swaps(options).map(swapBack).length }),
  'finish-swap': (options: InPlace & { keepAs: string; isSaved: boolean }) =>
    swaps(options).flatMap((swap) => finishSwap(swap, options.keepAs, options.isSaved)),
  'end-rehearsal': endRehearsal,
  ...{ inventory, sample, copy, measure },
};
export type Commands = typeof COMMANDS;

export type Answer = { ok: true; result: unknown } | { ok: false; error: ReturnType<typeof failureOf> };

async function carryOut({ command, options }: { command: string; options: object }): Promise<Answer> {
  try {
    const known = COMMANDS[command as keyof Commands] as (options: object) => unknown;
    return { ok: true, result: await known(options) };
  } catch (error) {
    return { ok: false, error: failureOf(error) };
  }
}

function answer(value: Answer): void {
  // A pipe takes 64 KiB at a time: what was not written when the process ends is lost.
  process.stdout.write(`${JSON.stringify(value)}\n`, () => process.exit(value.ok ? 0 : 1));
}

function main(): void {
  // Backups hold everything that the data holds: for their owner alone.
  process.umask(0o077);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.exit(143));
  process.on('uncaughtException', (error) => answer({ ok: false, error: failureOf(error) }));
  const input = createInterface({ input: process.stdin });
  input.once('line', (line) => void carryOut(JSON.parse(line)).then(answer));
  input.once('close', () => process.exit(143));
}

main();
