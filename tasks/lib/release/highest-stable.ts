// Whether a release is the highest stable one: only that one is `latest`.
import { localTags, remoteState } from '../git.ts';
import type { Project } from '../project.ts';
import { isStable, knownTags } from '../version/version-tags.ts';

/** `latest` moves only forward: another clone may have released something higher in the meantime. */
export async function isHighestStable(project: Project, { tag, push }: { tag: string; push: boolean }) {
  const { root, release } = project;
  const remote = push ? await remoteState(root, release.remote) : undefined;
  const everywhere = [
    ...(await localTags(root)),
    ...[...(remote?.tags ?? [])].map(([name, commit]) => ({ name, commit })),
  ];
  const highest = knownTags(everywhere, release.tag_prefix).find(({ version }) => isStable(version));
  return highest?.name === tag;
}
