// The program's commands: each takes plain options and returns plain results, so that the task needs to know
// nothing about archives.
import { get } from 'node:http';
import { basename } from 'node:path';
import {
  clearLeftovers,
  listArchives,
  parseName,
  readRecord,
  removeArchives,
  scratchPath,
  writeRecord,
} from './catalog.ts';
import { type CreateOptions, createArchive } from './create.ts';
import { becomeArchivist, becomeOwner } from './identity.ts';
import { lockDirectory } from './lock.ts';
import { PLACE_COMMANDS } from './place-commands.ts';
import { proveArchive, type Verdict, verifyArchive } from './prove.ts';
import { BackupError } from './report.ts';
import { type Manifest, summary } from './schema.ts';
import { freeBytes } from './space.ts';

interface Place {
  backups: string;
  project: string;
}

const peakMegabytes = () => Math.round(process.resourceUsage().maxRSS / 1024);

async function create(options: CreateOptions & { prove: boolean }): Promise<object> {
  const { data, backups, origin } = options;
  const owner = becomeOwner(data, backups);
  lockDirectory(backups, origin.project);
  const { record, manifest, seconds } = await createArchive(options);
  const { cut, blocked, skipped } = manifest;
  const made = { ...record, cut, blocked, skipped, seconds, owner };
  if (!options.prove) return { ...made, peakMegabytes: peakMegabytes() };
  const { ok, problems, seconds: proofSeconds } = await proveArchive(backups, origin.project, record.archive);
  if (!ok) {
    const text = [`${record.archive} does not hold what it should:`, ...problems.slice(0, 20)].join('\n  - ');
    throw new BackupError(
      'not-proven',
      text,
      'it is kept, but does not count; the older archives are untouched',
    );
  }
  const { proof } = readRecord(backups, record.archive)!;
  const archives = listArchives(backups, origin.project);
  return { ...made, proof, proofSeconds, peakMegabytes: peakMegabytes(), archives };
}

function verdictOf({ manifest, ...verdict }: Verdict): object {
  return { ...verdict, manifest: manifest ? summary(manifest) : null };
}

/** Proves archives of the backup directory. */
async function verify({ backups, project, archives }: Place & { archives: string[] | null }) {
  becomeArchivist(backups, project);
  if (listArchives(backups, project).length === 0) return { verdicts: [] };
  lockDirectory(backups, project);
  clearLeftovers(backups, project);
  const verdicts: object[] = [];
  for (const archive of archives ?? listArchives(backups, project).map((listed) => listed.archive)) {
    if (!parseName(project, archive))
      throw new BackupError('usage', `${archive} is not the name of an archive`);
    verdicts.push(verdictOf(await proveArchive(backups, project, archive)));
  }
  return { verdicts };
}

/** Verifies an archive wherever it lies, and records nothing. */
async function verifyFile({ backups, project, path }: Place & { path: string }): Promise<object> {
  const started = performance.now();
  const verdict = { archive: basename(path), manifest: undefined as Manifest | undefined };
  const seconds = () => Math.round(performance.now() - started) / 1000;
  try {
    const { manifest, problems } = await verifyArchive(path, scratchPath(backups, project));
    const ok = problems.length === 0;
    return { verdicts: [verdictOf({ ...verdict, manifest, ok, problems, seconds: seconds() })] };
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    return {
      verdicts: [verdictOf({ ...verdict, ok: false, problems: [error.message], seconds: seconds() })],
    };
  }
}

function list({ backups, project }: Place): object {
  becomeArchivist(backups, project);
  return { archives: listArchives(backups, project), free: freeBytes(backups) };
}

/** Removes archives that have a record of ours; anything else is refused. */
function remove({ backups, project, archives }: Place & { archives: string[] }): object {
  becomeArchivist(backups, project);
  if (listArchives(backups, project).length === 0) return { removed: [] };
  lockDirectory(backups, project);
  clearLeftovers(backups, project);
  const present = new Set(listArchives(backups, project).map(({ archive }) => archive));
  const wanted = archives.filter((archive) => present.has(archive));
  for (const archive of wanted) {
    if (readRecord(backups, archive)?.source === 'created') continue;
    throw new BackupError('foreign', `${archive} was not made here and is not removed`);
  }
  removeArchives(backups, wanted);
  return { removed: wanted };
}

/** An archive was started and answered: its proof says so. */
function rehearsed({ backups, project, archive, at }: Place & { archive: string; at: string }): object {
  const archivist = becomeArchivist(backups, project);
  const record = readRecord(backups, archive);
  if (!record?.proof) throw new BackupError('not-proven', `${archive} is not proven`);
  writeRecord(backups, { ...record, proof: { ...record.proof, rehearsed: at } }, archivist);
  return {};
}

/** Asks a service in the same network namespace how it is. */
function ask({ url }: { url: string }): Promise<object> {
  return new Promise((resolve) => {
    const request = get(url, { timeout: 2000 }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 2 s')));
    request.on('error', (error) => resolve({ status: 0, body: error.message }));
  });
}

// biome-ignore lint/suspicious/noExplicitAny: the options come from the task of the same release, as JSON
export const COMMANDS: Record<string, (options: any) => object | Promise<object>> = {
  create,
  verify,
  'verify-file': verifyFile,
  list,
  remove,
  rehearsed,
  ask,
  ...PLACE_COMMANDS,
};
