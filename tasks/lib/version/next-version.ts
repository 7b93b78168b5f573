// From what was asked for to a version number, as semver counts. Apart from version.ts, which decides whether
// that number may be released beside everything that already is.

import { usageError } from '../errors.ts';
import { semver } from '../libraries.ts';
import { suggestion } from '../nearest.ts';
import { isStable } from './version-tags.ts';

export type StableBump = 'major' | 'minor' | 'patch';
export const BUMPS = ['patch', 'minor', 'major', 'prerelease', 'auto'] as const;

/** What a version came from. `first` is the first release of a branch without any. */
export type Bump = StableBump | 'prerelease' | 'explicit' | 'first';

interface NextRequest {
  requested: string;
  preid?: string | undefined;
  /** What `auto` means here. */
  changes?: { bump: StableBump } | undefined;
}

/**
 * The version that `requested` leads to from `current` (the highest on the branch) and `stable` (the highest
 * without prerelease part). Throws a usage error for text that is no version and no known word.
 */
export function nextVersion(
  request: NextRequest,
  current?: string,
  stable?: string,
): { next: string; bump: Bump } {
  const { requested, preid = 'rc', changes } = request;
  const word = BUMPS.find((bump) => bump === requested);
  if (!word) return { next: explicitVersion(requested), bump: 'explicit' };
  if (!/^[a-z][0-9a-z-]*$/i.test(preid)) {
    throw usageError(`--preid ${preid} cannot name a prerelease`, {
      hint: 'use a word such as rc, beta or alpha',
    });
  }
  if (!current) return { next: word === 'prerelease' ? `1.0.0-${preid}.0` : '1.0.0', bump: 'first' };
  if (word !== 'auto') return { next: semver.inc(current, word, preid)!, bump: word };
  const bump = changes?.bump ?? 'patch';
  return { next: finishedVersion(current, stable, bump), bump };
}

/**
 * From a prerelease, `auto` completes it, unless the changes since the last stable release ask for more:
 * 1.0.0 → 1.1.0-rc.1 becomes 1.1.0, and with a breaking change 2.0.0.
 */
function finishedVersion(current: string, stable: string | undefined, bump: StableBump): string {
  if (isStable(current)) return semver.inc(current, bump)!;
  const completed = semver.inc(current, 'patch')!;
  const asked = stable ? semver.inc(stable, bump)! : completed;
  return semver.gt(asked, completed) ? asked : completed;
}

function explicitVersion(text: string): string {
  const parsed = /^v?\d/.test(text) ? semver.parse(text) : null;
  if (!parsed) {
    const hint = /^v?\d/.test(text)
      ? 'a version has three numbers, e.g. 1.4.0'
      : suggestion(text, [...BUMPS]);
    throw usageError(`"${text}" is neither a version nor one of ${BUMPS.join(', ')}`, { hint });
  }
  if (parsed.build.length > 0) {
    const hint = `an image tag cannot contain "+"; use ${parsed.version}`;
    throw usageError(`Version ${text} has build metadata`, { hint });
  }
  return parsed.version;
}
