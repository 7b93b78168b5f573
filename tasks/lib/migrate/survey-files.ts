// Looking at paths: where they really lead, whose they are, what room there is.
import { access, constants, lstat, readFile, realpath, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { probe } from '../command.ts';
import type { Legacy } from './legacy.ts';
import type { MigrationFacts, Owner } from './plan-facts.ts';

/** The path with all links resolved, also where its end does not exist yet. */
export async function resolvedPath(path: string): Promise<string> {
  return realpath(path).catch(async () =>
    join(await resolvedPath(dirname(path)), path.slice(dirname(path).length)),
  );
}

export async function ownerOf(path: string): Promise<Owner | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found && { uid: found.uid, gid: found.gid, mode: found.mode & 0o7777 };
}

/** The nearest folder that exists, and what is free there. */
export async function roomAt(
  what: MigrationFacts['room'][number]['what'],
  place: string,
): Promise<MigrationFacts['room'][number]> {
  const found = await stat(place).catch(() => undefined);
  if (!found) return { ...(await roomAt(what, dirname(place))), place };
  const { bavail, bsize } = await statfs(place);
  return { what, place, filesystem: String(found.dev), free: bavail * bsize };
}

async function isMountPoint(path: string): Promise<boolean> {
  const table = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  const points = table
    .split('\n')
    .map((line) =>
      line
        .split(' ')[4]
        ?.replace(/\\(\d{3})/g, (_all, code) => String.fromCharCode(Number.parseInt(code, 8))),
    );
  const [own, above] = await Promise.all([lstat(path), lstat(dirname(path))]);
  return points.includes(path) || own.dev !== above.dev;
}

export async function surveyData(legacy: Legacy): Promise<MigrationFacts['data']> {
  const { path } = legacy.data;
  const sizes = await probe(['du', '-sk', path]);
  const owner = (await ownerOf(path))!;
  const self = process.getuid?.();
  const mayWrite = await access(dirname(path), constants.W_OK).then(
    () => true,
    () => false,
  );
  return {
    bytes: Number(sizes.stdout.split(/\s/)[0]) * 1024,
    owner,
    isMount: await isMountPoint(path),
    mayMove: self === undefined || self === 0 || (sizes.ok && owner.uid === self && mayWrite),
  };
}

export async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined;
}
