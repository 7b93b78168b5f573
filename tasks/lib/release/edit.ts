// The entry in the hands of a person before it is committed: opened in their editor, taken as they left it.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { read, runAttached } from '../command.ts';
import { TaskError } from '../errors.ts';
import { git } from '../git.ts';
import { findEntry, insertEntry } from '../notes/changelog.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import { withWorkDirectory } from '../work-directory.ts';
import { type ReleasePlan, readNotes } from './plan.ts';

/** The plan with the entry as it was edited. @throws TaskError if it lost its heading or everything */
export async function editEntry(project: Project, plan: ReleasePlan): Promise<ReleasePlan> {
  const { tag } = plan.version;
  const existing = await readNotes(project);
  if (findEntry(existing, tag)) {
    throw new TaskError(`Cannot edit the notes of ${tag}: ${project.release.notes} already has its entry`, {
      code: 'notes-exist',
      hint: 'edit it there and commit it; the release takes it as it is',
    });
  }
  // $GIT_EDITOR, core.editor, $VISUAL, $EDITOR, vi: the order that people have set up for git.
  const editor = await read(git(project.root, 'var', 'GIT_EDITOR'));
  const entry = await withWorkDirectory(project.root, async (directory) => {
    const file = join(directory, `${tag}.md`);
    if (!session.dryRun) await writeFile(file, `${plan.entry.trimEnd()}\n`);
    const [program = 'vi', ...argv] = editor.split(/\s+/);
    await runAttached([program, ...argv, file]);
    return session.dryRun ? plan.entry : readFile(file, 'utf8');
  });
  const notes = insertEntry(existing, entry, tag);
  if (entry.trim() !== '' && findEntry(notes, tag)) return { ...plan, entry, notes, isEmpty: false };
  throw new TaskError(`Stopped: the edited entry has no heading for ${tag}. Nothing was changed.`, {
    code: 'notes-empty',
    hint: `its first line must be like: ## [${tag}] - ${plan.date.toISOString().slice(0, 10)}`,
  });
}
