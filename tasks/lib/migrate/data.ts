// The data and the models: the old directory is set aside as it is, and the new service works on a copy that was compared
// with it. So a rollback restores nothing, and no mistake of the new service can touch the old data.
import { join } from 'node:path';
import { performBackup } from '../backup/create.ts';
import { backupDirectory, verifyDirectories } from '../backup/places.ts';
import { resumeRestore } from '../backup/restore.ts';
import { run } from '../command.ts';
import { tryCandidate } from '../docker/candidate.ts';
import { docker } from '../docker/engine.ts';
import { inspectVolume } from '../docker/objects.ts';
import { updateDotenv } from '../dotenv.ts';
import { CommandError, TaskError } from '../errors.ts';
import { statePath, writeFileAtomic } from '../files.ts';
import { imageReference, type Project, variableName } from '../project.ts';
import { versionOfTag } from '../release/record.ts';
import { allContainers } from './detect.ts';
import { exists, move, remove } from './kept.ts';
import { describedLegacy } from './plan.ts';
import type { Migration } from './report.ts';
import { containerUser, copyFor, takeInventory } from './verify.ts';

/** Starts the new version on a copy of the data, while the old service still answers. */
export async function rehearse(project: Project, { tag, plan: { data } }: Migration): Promise<void> {
  if (!tag) return;
  await remove(data.rehearsal);
  await run(['mkdir', '-m', '0700', '--', data.rehearsal]);
  await copyFor(project, data.from, data.rehearsal);
  const expected = { env: 'prod', version: versionOfTag(project, tag) };
  try {
    await tryCandidate(project, { image: imageReference(project, tag), expected, data: data.rehearsal });
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    throw new TaskError(`The new version does not start on a copy of the data: ${error.message}`, {
      code: 'rehearsal-failed',
      hint: 'the old service was not stopped; fix the new version, release it, then migrate again',
      cause: error,
    });
  }
  await remove(data.rehearsal);
}

export const removeRehearsal = (_project: Project, { plan }: Migration) => remove(plan.data.rehearsal);

/** On disk before the journal says so: after a power cut the copy must be there. */
const flush = (path: string) => run(process.platform === 'linux' ? ['sync', '-f', path] : ['sync']);

export async function copyData(project: Project, { plan: { data } }: Migration): Promise<void> {
  await remove(data.copy);
  await run(['cp', '-a', '--', data.from, data.copy]);
  try {
    await run(['diff', '-rq', '--no-dereference', data.from, data.copy]);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new TaskError(`The copy of ${data.from} differs: ${error.stderr}${error.stdout}`, {
      code: 'copy-differs',
      hint: 'does another program write there?',
    });
  }
  const { uid, gid } = containerUser(project);
  await run(['chown', '-h', '-R', `${uid}:${gid}`, data.copy]);
  await run(['chmod', '0700', data.copy]);
  await flush(data.copy);
}

export const removeCopy = (_project: Project, { plan }: Migration) => remove(plan.data.copy);

export async function placeData(_project: Project, { plan: { data } }: Migration): Promise<void> {
  if (data.aside) await move(data.from, data.aside);
  // An empty directory that setup has made.
  else if (await exists(data.to)) await run(['rmdir', data.to]);
  await run(['mv', '--', data.copy, data.to]);
  await flush(data.to);
}

export async function displaceData(
  _project: Project,
  { plan: { data }, hasStarted }: Migration,
): Promise<void> {
  // With two places: as long as there is a copy, what is at the new one is not ours.
  const isPlaced = data.aside ? await exists(data.aside) : !(await exists(data.copy));
  if (!isPlaced) return;
  if (hasStarted) await move(data.to, data.kept);
  else await remove(data.to);
  if (data.aside) await move(data.aside, data.from);
}

export const inventoryPath = ({ root }: Project) => statePath(root, 'migration-inventory.json');

export async function backUp(project: Project, data: Migration): Promise<void> {
  const began = performance.now();
  verifyDirectories(project);
  await resumeRestore(project);
  // Both services are stopped: a large database may take its time.
  const patient = { ...project, backup: { ...project.backup, max_block: 86_400 } };
  const { created } = await performBackup(patient, { rehearse: false }, {});
  const seconds = Math.round(performance.now() - began) / 1000;
  if (created) data.backup = { archive: join(backupDirectory(project), created.archive), seconds };
  const inventory = await takeInventory(project, data.plan.data.to, data.stoppedAt!);
  if (inventory) await writeFileAtomic(inventoryPath(project), JSON.stringify(inventory), { mode: 0o600 });
}

export async function carryModels(project: Project, { plan: { models } }: Migration): Promise<void> {
  const { models_variable, models_volume } = describedLegacy(project);
  if (models.by === 'reuse' && models_variable)
    await updateDotenv(project.root, { [variableName(project, models_variable)]: models.to });
  if (models.by !== 'copy') return;
  if (!(await inspectVolume(models.to))) {
    // Compose takes a volume with these labels for its own.
    const label = (name: string, value: string) => `--label=com.docker.compose.${name}=${value}`;
    const labels = [label('project', project.project.name), label('volume', models_volume)];
    await run(docker('volume', 'create', ...labels, models.to));
  }
  await copyFor(project, `${models.from}:ro`, models.to);
}

export async function removeModels(_project: Project, { plan: { models } }: Migration): Promise<void> {
  if (models.by !== 'copy' || models.existed || !(await inspectVolume(models.to))) return;
  const containers = await allContainers();
  const isUsed = containers.some(({ mounts }) => mounts.some(({ source }) => source === models.to));
  if (!isUsed) await run(docker('volume', 'rm', models.to));
}
