// Released images that this machine had to build again and could not get byte for byte, because its base
// image or builder is another one. Such a build is accepted once, with a warning, and from then on exactly
// that image counts as the release on this machine.
import { readIfPresent, replaceFile } from '../files.ts';
import { session } from '../session.ts';
import { ensureStateDirectory, statePath } from '../state.ts';

export interface Rebuild {
  /** `Image.id` of the local build. */
  digest: string;
  /** What the tag records. */
  released: string;
  /** What differs, in words. */
  why: string;
  /** ISO 8601, UTC. */
  at: string;
}

const FILE = 'rebuilds.json';

async function readRebuilds(root: string): Promise<Record<string, Rebuild>> {
  const text = await readIfPresent(statePath(root, FILE));
  return text ? (JSON.parse(text) as Record<string, Rebuild>) : {};
}

/** The accepted rebuild of a release whose tag records `released`; a tag that moved since has none. */
export async function acceptedRebuild(root: string, tag: string, released: string) {
  const rebuild = (await readRebuilds(root))[tag];
  return rebuild?.released === released ? rebuild : undefined;
}

export async function acceptRebuild(root: string, tag: string, rebuild: Rebuild): Promise<void> {
  if (session.dryRun) return;
  await ensureStateDirectory(root);
  const rebuilds = { ...(await readRebuilds(root)), [tag]: rebuild };
  await replaceFile(statePath(root, FILE), `${JSON.stringify(rebuilds, null, 2)}\n`, { mode: 0o600 });
}
