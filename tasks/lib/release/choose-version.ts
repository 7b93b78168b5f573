// Which version a person wants: a choice on a terminal, each with the version it leads to, the recommended
// one first; and the tags that decide, those of the remote included.
import type { GitTag, RemoteState } from '../git.ts';
import { choose } from '../prompt.ts';
import { type VersionRequest, versionChoices } from '../version/version.ts';

export function tagsEverywhere({
  tags,
  remote,
}: {
  tags: GitTag[];
  remote: RemoteState | undefined;
}): VersionRequest['everywhere'] {
  const remoteTags = [...(remote?.tags ?? [])].map(([name, commit]) => ({
    name,
    commit,
    where: 'remote' as const,
  }));
  return [...tags.map((tag) => ({ ...tag, where: 'local' as const })), ...remoteTags];
}

/** @throws TaskError exit 2 without a terminal */
export async function chooseVersion(request: Omit<VersionRequest, 'requested'>): Promise<string> {
  const choices = versionChoices(request).map(({ requested, version, bump, isRecommended }) => ({
    value: requested,
    label: `${requested === 'auto' ? bump : requested} → ${version}`,
    hint: isRecommended ? 'recommended by the commits' : '',
  }));
  return choose('Which version?', choices, 'name it: release.ts patch|minor|major|prerelease|auto|X.Y.Z');
}
