// What a migration writes into the repository: the old compose file's new name, settings, the section of the notes; and
// what a rollback takes back of it, without touching what somebody has written since.
import { join } from 'node:path';
import { run } from '../command.ts';
import { updateDotenv } from '../dotenv.ts';
import { readIfPresent, writeFileAtomic } from '../files.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { commitFiles, move } from './kept.ts';
import { describedLegacy } from './plan.ts';
import { type Migration, migrationEntry, withEntry, withoutEntry } from './report.ts';
import { oldCompose } from './service.ts';
import { planNewSettings } from './settings.ts';

export async function renameComposeFile(_project: Project, { plan }: Migration): Promise<void> {
  for (const { path, deprecated } of plan.compose) await move(path, deprecated);
}

export async function restoreComposeFile(_project: Project, { plan }: Migration): Promise<void> {
  for (const { path, deprecated } of plan.compose) await move(deprecated, path);
}

export async function writeSettings(project: Project, data: Migration): Promise<void> {
  const old = { ...data.legacy, ...(await oldCompose(data)) };
  const { variables } = await planNewSettings(project, describedLegacy(project), old);
  for (const [file, { after }] of Object.entries(data.settings.files))
    await writeFileAtomic(join(project.root, file), after);
  await updateDotenv(project.root, variables);
}

export async function undoSettings({ root }: Project, { settings }: Migration): Promise<void> {
  for (const [file, { before, after }] of Object.entries(settings.files)) {
    const path = join(root, file);
    const now = (await readIfPresent(path)) ?? null;
    if (now === before) continue;
    if (now !== after) log.warn(`${file} was edited since the migration: it is left as it is`);
    else if (before === null) await run(['rm', '--', path]);
    else await writeFileAtomic(path, before);
  }
}

/** Files of this repository that a migration writes, and that git shall know. */
export function writtenFiles({ root, release }: Project, { settings, plan }: Migration): string[] {
  return [
    ...Object.keys(settings.files).map((file) => join(root, file)),
    join(root, release.notes),
    ...plan.compose.flatMap(({ path, deprecated }) => [path, deprecated]),
  ];
}

async function editNotes({ root, release }: Project, edit: (text: string) => string): Promise<void> {
  const path = join(root, release.notes);
  const text = (await readIfPresent(path)) ?? '';
  const edited = edit(text);
  if (edited !== text) await writeFileAtomic(path, edited);
}

export async function writeNotes(project: Project, data: Migration): Promise<void> {
  const entry = migrationEntry(data);
  data.entry = entry;
  await editNotes(project, (text) => withEntry(text, data.tag, entry));
  const message = `chore: migrate from ${data.legacy.service}`;
  data.commit = await commitFiles(project, writtenFiles(project, data), message);
}

/** Only its own lines: later releases have written there since. */
export async function removeNotes(project: Project, data: Migration): Promise<void> {
  await editNotes(project, (text) => withoutEntry(text, data.entry ?? migrationEntry(data)));
}
