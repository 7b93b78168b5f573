// The directory that both environments share: there, private, and owned by whom the containers run as.
// What somebody's data looks like is changed only after the plan has said so.
import { constants } from 'node:fs';
import { access, readdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { makeDirectory } from '../files.ts';

export interface Owner {
  uid: number;
  gid: number;
}

/** What is there now; undefined if nothing is. `mode` has the permission bits alone. */
type DirectoryState = (Owner & { mode: number; entries: number }) | undefined;

export type DirectoryStep =
  | { act: 'make'; path: string }
  | { act: 'own'; path: string; owner: Owner; from: Owner; entries: number }
  | { act: 'restrict'; path: string; from: number };

const PRIVATE = 0o700;
const octal = (mode: number) => mode.toString(8).padStart(4, '0');

/** @throws TaskError if the path is something else than a directory, or may not be read */
export async function observeDirectory(path: string): Promise<DirectoryState> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new TaskError(`Cannot look at the data directory ${path}: ${error.message}`, {
      code: 'data-directory',
    });
  });
  if (!found) return undefined;
  if (!found.isDirectory()) {
    throw new TaskError(`The data directory ${path} is not a directory`, { code: 'data-directory' });
  }
  const entries = await readdir(path).catch(() => []);
  return { uid: found.uid, gid: found.gid, mode: found.mode & 0o777, entries: entries.length };
}

/**
 * Whom the containers run as: what .env says, else whoever owns the data already, else us. Root becomes
 * 1000, the user `node` of the image, since the containers never run as root.
 */
export function chooseOwner(configured: Partial<Owner>, state: DirectoryState, self: Owner): Owner {
  const fallback = self.uid === 0 ? { uid: 1000, gid: 1000 } : self;
  const natural = state && state.entries > 0 && state.uid !== 0 ? state : fallback;
  return { uid: configured.uid ?? natural.uid, gid: configured.gid ?? natural.gid };
}

/** The steps from `state` to a private directory of `owner`; none if it is one. Pure. */
export function planDirectory(
  path: string,
  state: DirectoryState,
  owner: Owner,
  self: Owner,
): DirectoryStep[] {
  const steps: DirectoryStep[] = [];
  const present = state ?? { ...self, mode: PRIVATE, entries: 0 };
  if (!state) steps.push({ act: 'make', path });
  if (present.mode !== PRIVATE) steps.push({ act: 'restrict', path, from: present.mode });
  if (present.uid !== owner.uid || present.gid !== owner.gid) {
    const from = { uid: present.uid, gid: present.gid };
    steps.push({ act: 'own', path, owner, from, entries: present.entries });
  }
  return steps;
}

/** One line for a plan. */
export function describeDirectoryStep(step: DirectoryStep): string {
  if (step.act === 'make') return `make the data directory ${step.path} (${octal(PRIVATE)})`;
  if (step.act === 'restrict') {
    return `restrict the data directory ${step.path}: mode ${octal(step.from)} → ${octal(PRIVATE)}`;
  }
  const { from, owner, entries } = step;
  const inside = entries > 0 ? `, with everything in it (${entries} entries)` : '';
  return `give ${step.path}${inside} to the containers’ user: ${from.uid}:${from.gid} → ${owner.uid}:${owner.gid}`;
}

async function nearestParent(path: string): Promise<string> {
  const parent = dirname(path);
  const found = await stat(parent).catch(() => undefined);
  return found ? parent : nearestParent(parent);
}

/** @throws TaskError if this user may not carry the steps out; `variable` is the setting to change instead */
export async function verifyDirectory(steps: readonly DirectoryStep[], self: Owner, variable: string) {
  if (self.uid === 0) return;
  for (const step of steps) {
    const parent = await nearestParent(step.path);
    const mayMake = () =>
      access(parent, constants.W_OK).then(
        () => true,
        () => false,
      );
    const allowed = step.act === 'make' ? await mayMake() : step.act === 'restrict';
    if (allowed) continue;
    throw new TaskError(`This user (${self.uid}) may not ${describeDirectoryStep(step)}`, {
      code: 'data-directory',
      hint: `sudo install -d -m 0700 -o ${self.uid} -g ${self.gid} ${step.path}\nor choose another place: ${variable}=… in .env`,
    });
  }
}

export async function applyDirectoryStep(step: DirectoryStep): Promise<void> {
  switch (step.act) {
    case 'make':
      // What lies above is no secret, and shared with other things.
      await makeDirectory(dirname(step.path));
      return makeDirectory(step.path, PRIVATE);
    case 'restrict':
      await run(['chmod', octal(PRIVATE), step.path]);
      return;
    case 'own':
      // -h: a symbolic link in the data must not give away what it points to.
      await run(['chown', '-h', '-R', `${step.owner.uid}:${step.owner.gid}`, step.path]);
  }
}
