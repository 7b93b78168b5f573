// Naming a version that is already released here: whatever of it is missing is done again, above all the
// pushes that were not asked for at first. Nothing about the release itself changes.
import { probe } from '../command.ts';
import { TaskError } from '../errors.ts';
import { git, isAncestor, resolveRevision } from '../git.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { parseTag } from '../version/version-tags.ts';
import { isMaintenanceBranch } from './branches.ts';
import { isHighestStable } from './highest-stable.ts';
import { askRemote } from './preflight-remote.ts';
import type { PreparedRelease, ResumeOptions } from './prepared.ts';
import { readRelease } from './record.ts';

/** The release of the version that was asked for, ready to be finished; undefined if it is a new one. */
export async function existingRelease(
  project: Project,
  requested: string | undefined,
  options: ResumeOptions,
): Promise<PreparedRelease | undefined> {
  const { root, release } = project;
  const version = requested && /^v?\d/.test(requested) ? requested.replace(/^v/, '') : undefined;
  const tag = `${release.tag_prefix}${version}`;
  if (!version || parseTag(release.tag_prefix, tag) !== version) return undefined;
  const [tagObject, commit, record] = await Promise.all([
    resolveRevision(root, `refs/tags/${tag}`),
    resolveRevision(root, `refs/tags/${tag}^{commit}`),
    readRelease(root, tag),
  ]);
  const branch = (await probe(git(root, 'symbolic-ref', '--short', '--quiet', 'HEAD'))).stdout.trim();
  if (!tagObject || !commit || !record || !branch || !(await isAncestor(root, commit, 'HEAD')))
    return undefined;
  const from = await resolveRevision(root, `${commit}^`);
  if (!from) throw new TaskError(`The release ${tag} has no commit before it`, { code: 'not-released' });
  if (options.push) await askRemote(project, true);
  log.step(`${tag} is released on this machine; doing what is left of it`);
  const { digest, platforms } = record;
  const movesLatest =
    !isMaintenanceBranch(project, branch) && (await isHighestStable(project, { tag, push: options.push }));
  const names = { tag, version, branch, from, commit, tagObject };
  return { ...names, digest, platforms, previous: null, movesLatest, ...options };
}
