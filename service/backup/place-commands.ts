// The commands of a restore: they act on a data directory and its neighbours, as root, because owners come back.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { readArchive } from './read-archive.ts';
import { BackupError } from './report.ts';
import { summary } from './schema.ts';
import { freeBytes } from './space.ts';
import { finishSwap, inspectPlace, type Places, swapBack, swapIn } from './swap.ts';
import { unpackArchive } from './unpack.ts';

async function unpack({ archive, parent, name }: { archive: string; parent: string; name: string }) {
  const { manifest } = await unpackArchive(archive, join(parent, name));
  return { manifest: summary(manifest) };
}

/** Removes a directory of a rehearsal; no other name is accepted. */
function discard({ parent, name, project }: { parent: string; name: string; project: string }): object {
  if (!name.startsWith(`.${project}-scratch-`) || name.includes('/'))
    throw new BackupError('usage', `${name} is not a scratch directory`);
  rmSync(join(parent, name), { recursive: true, force: true });
  return {};
}

interface RestoreQuestion {
  /** The archive. */
  path: string;
  parent: string;
  name: string;
}

/** What there is to know before a restore: the place, and the archive, read through with every hash compared. */
async function preview({ path, parent, name }: RestoreQuestion): Promise<object> {
  const place = { present: inspectPlace(parent, name), free: freeBytes(parent) };
  try {
    const { manifest, problems } = await readArchive(path, async () => {});
    return { ...place, problems, manifest: summary(manifest) };
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    return { ...place, problems: [error.message], manifest: null };
  }
}

export const PLACE_COMMANDS = {
  preview,
  discard,
  unpack,
  'swap-in': ({ places }: { places: Places }) => {
    swapIn(places);
    return {};
  },
  'swap-back': ({ places, hadCurrent }: { places: Places; hadCurrent: boolean }) => {
    swapBack(places, hadCurrent);
    return {};
  },
  'finish-swap': ({ places, keepAs }: { places: Places; keepAs: string | null }) => {
    finishSwap(places, keepAs);
    return {};
  },
};
