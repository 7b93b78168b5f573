// A backup from beginning to end: hooks, archive and proof, rehearsal, retention, off-site. Only what is proven
// counts, and only then may anything older go.
import { type Phases, timed } from '../phases.ts';
import { dataDirectory, type Project } from '../project.ts';
import { listArchives, placesOf, removeArchives } from './archives.ts';
import { type Freezer, withFreezer } from './freeze.ts';
import { ping, runAfterHooks, runBeforeHooks } from './notify.ts';
import { sendOffsite, verifyOffsite } from './offsite.ts';
import { backupOrigin } from './origin.ts';
import { type BackupImage, backupDirectory, backupImage } from './places.ts';
import { runProgram } from './program.ts';
import { DATA } from './program-command.ts';
import type { CreatedArchive } from './program-schema.ts';
import { type ProgramSession, withSession } from './program-session.ts';
import { rehearse } from './rehearse.ts';
import { isEmptyPolicy, planRetention } from './retention.ts';

/** Under --dry-run. */
const UNNAMED = '<archive>';

export interface BackupOptions {
  /** Freeze the containers while files that are no databases are copied. */
  pause: boolean;
  rehearse: boolean;
}

export interface BackupResult {
  /** Undefined under --dry-run. */
  created: CreatedArchive | undefined;
  removed: string[];
}

/** What the container of a backup sees. */
function sharedBy(project: Project, image: BackupImage) {
  const mounts = { ...placesOf(project).mounts, [DATA]: dataDirectory(project) };
  return { image: image.program, mounts, makesBackups: true };
}

/** Makes and proves one archive; nothing else. @throws TaskError */
export async function createArchive(
  project: Project,
  image: BackupImage,
  options: { pause: boolean },
  within?: ProgramSession,
): Promise<CreatedArchive | undefined> {
  const { CreatedArchive } = await import('./program-schema.ts');
  const { options: places } = placesOf(project);
  const { lock_timeout, max_block } = project.backup;
  const request = {
    ...places,
    data: DATA,
    origin: await backupOrigin(project, image),
    pause: options.pause,
    prove: true,
    lockTimeoutMs: lock_timeout * 1000,
    maxBlockMs: max_block * 1000,
  };
  const call = {
    ...sharedBy(project, image),
    command: 'create',
    options: request,
    within,
  };
  const answer = (freezer: Freezer) => async (question: 'pause' | 'thaw') => {
    if (question === 'thaw') await freezer.thaw();
    else await freezer.freeze();
    return question === 'thaw' ? 'thawed' : 'paused';
  };
  return withFreezer(project, (freezer) =>
    runProgram(project, { ...call, answer: answer(freezer) }, CreatedArchive),
  );
}

/** Removes what no rule keeps. */
async function applyRetention(
  project: Project,
  image: BackupImage,
  created: CreatedArchive,
  within: ProgramSession,
): Promise<string[]> {
  if (isEmptyPolicy(project.backup.keep)) return [];
  const archives = created.archives ?? (await listArchives(project, image, within)).archives;
  const going = planRetention(archives, project.backup.keep).filter(({ keep }) => !keep);
  if (going.length === 0) return [];
  return removeArchives(project, image, going.map(({ archive }) => archive).sort(), within);
}

async function steps(project: Project, options: BackupOptions, phases: Phases) {
  const image = await backupImage(project);
  await verifyOffsite(project);
  await runBeforeHooks(project);
  const result = await withSession(project, sharedBy(project, image), async (within) => {
    const make = () => createArchive(project, image, options, within);
    const created = await timed(phases, 'archive and proof', make);
    const archive = created?.archive ?? UNNAMED;
    if (options.rehearse) await timed(phases, 'rehearsal', () => rehearse(project, image, archive));
    if (!created) return { created, removed: [] };
    const clean = () => applyRetention(project, image, created, within);
    return { created, removed: await timed(phases, 'retention', clean) };
  });
  const archive = result.created?.archive ?? UNNAMED;
  if (project.backup.offsite) await timed(phases, 'off-site', () => sendOffsite(project, archive));
  return result;
}

/** The whole backup; hooks and the dead-man's switch hear of it, good or bad. @throws TaskError */
export async function performBackup(
  project: Project,
  options: BackupOptions,
  phases: Phases,
): Promise<BackupResult> {
  let result: BackupResult | undefined;
  try {
    result = await steps(project, options, phases);
    return result;
  } finally {
    const name = result?.created?.archive;
    const ok = result !== undefined;
    await runAfterHooks(project, { ok, archive: name ? `${backupDirectory(project)}/${name}` : '' });
    await ping(project, ok);
  }
}
