// The end of the way back: after some days the old pieces are removed, each only if nobody uses it.
import { probe, run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { inspectImage } from '../docker/images.ts';
import { TaskError } from '../errors.ts';
import { log } from '../log.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import type { Project } from '../project.ts';
import { engineContainers, engineVolume } from './engine-view.ts';
import { removeVolume } from './models.ts';
import type { MigrationRecord, Recorder } from './record.ts';
import { forget } from './steps-backup.ts';
import { exists } from './survey-files.ts';

export interface OldPieces {
  directory: string | undefined;
  image: string | undefined;
  volume: string | undefined;
}

/** What of the older setup is still there and of no use to the new one. */
export async function oldPieces({ legacy, plan }: MigrationRecord): Promise<OldPieces> {
  const directory = plan.data.aside ?? plan.data.from;
  const isUsed = (await engineContainers()).some(({ image }) => image === legacy.image);
  return {
    directory: (await exists(directory)) ? directory : undefined,
    image: !isUsed && (await inspectImage(legacy.image)) ? legacy.image : undefined,
    volume:
      plan.models.by === 'copy' && (await engineVolume(plan.models.from)) ? plan.models.from : undefined,
  };
}

export function describePieces({ directory, image, volume }: OldPieces): string[] {
  return [
    ...(directory ? [`remove the old data ${directory}`] : []),
    ...(image ? [`remove the image ${image}`] : []),
    ...(volume ? [`remove the old models volume ${volume}`] : []),
  ];
}

/** The record of what can be finished. @throws TaskError before the grace period is over, or if there is nothing to finish */
export function verifyFinish(
  description: LegacyDescription,
  record: MigrationRecord | undefined,
  now: Date,
): MigrationRecord {
  if (!record || (record.state !== 'migrated' && record.state !== 'finishing')) {
    throw new TaskError('There is no migration to finish', {
      code: 'nothing-to-finish',
      hint: 'where it stands: npx tsx tasks/migrate.ts --status',
    });
  }
  const ends = new Date(Date.parse(record.endedAt ?? record.startedAt) + description.grace_days * 86_400_000);
  if (now >= ends || record.state === 'finishing') return record;
  throw new TaskError(
    `The old pieces stay until ${ends.toISOString()}, ${description.grace_days} days from the migration`,
    {
      code: 'grace-period',
      hint: 'a rollback needs them; migrate.grace_days in configs/release.toml says how long',
    },
  );
}

export async function removeOldPieces(
  project: Project,
  recorder: Recorder,
  pieces: OldPieces,
): Promise<void> {
  await recorder.note('finishing', (record) => {
    record.state = 'finishing';
  });
  if (pieces.directory) await run(['rm', '-rf', '--', pieces.directory]);
  if (pieces.image) {
    const answer = await probe(docker('image', 'rm', pieces.image));
    if (!answer.ok) log.warn(`${pieces.image} stays: ${answer.stderr.trim()}`);
  }
  const users = pieces.volume ? await removeVolume(pieces.volume) : [];
  if (users.length > 0) log.warn(`${pieces.volume} stays: ${users.join(', ')} uses it`);
  await recorder.settle('finished');
  await forget(project.root, recorder.record.id);
}
