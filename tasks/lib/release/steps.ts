// What follows a release's commit point, in order. Each step may already have been done, wholly or in part,
// by a run that died, and finds out by looking.
import { buildCommit } from '../docker/build.ts';
import { candidateReference, removeCandidates } from '../docker/candidate.ts';
import { engineInfo } from '../docker/engine-info.ts';
import { inspectImage, tagImage } from '../docker/images.ts';
import { pushImage } from '../docker/registry.ts';
import { TaskError } from '../errors.ts';
import { resolveRevision, shortHash } from '../git.ts';
import { uninterrupted } from '../interrupt.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference } from '../project.ts';
import { session } from '../session.ts';
import { runHooks } from './hooks.ts';
import type { PreparedRelease } from './prepared.ts';
import { publishRefs, type RecordMerge } from './publish.ts';
import { acceptRebuild } from './rebuilds.ts';
import { isReleasedImage, releasedDigests } from './record.ts';
import { updateWorkTree } from './refs.ts';

export interface FinishStep {
  /** As the journal names it once the step is done. */
  name: string;
  isWanted: (prepared: PreparedRelease, project: Project) => boolean;
  perform: (project: Project, prepared: PreparedRelease, recordMerge: RecordMerge) => Promise<unknown>;
}

const always = () => true;

export const FINISH_STEPS: readonly FinishStep[] = [
  {
    name: 'work-tree',
    isWanted: always,
    perform: (project, prepared) => uninterrupted(() => followWorkTree(project, prepared)),
  },
  {
    name: 'image',
    isWanted: always,
    perform: (project, prepared) => uninterrupted(() => nameImage(project, prepared)),
  },
  {
    name: 'pushed-image',
    isWanted: ({ push }, { image }) => push && image.registry !== undefined,
    perform: pushVersion,
  },
  { name: 'pushed-refs', isWanted: ({ push }) => push, perform: publishRefs },
  {
    name: 'latest',
    isWanted: ({ movesLatest }) => movesLatest,
    perform: (project, { tag }) => tagImage(imageReference(project, tag), imageReference(project, 'latest')),
  },
  {
    name: 'pushed-latest',
    isWanted: ({ push, movesLatest }, { image }) => push && movesLatest && image.registry !== undefined,
    perform: (project) =>
      pushImage(imageReference(project, 'latest'), registryReference(project, 'latest')!, {
        immutable: false,
      }),
  },
  { name: 'cleaned', isWanted: always, perform: (project) => uninterrupted(() => removeCandidates(project)) },
  {
    name: 'hooks',
    isWanted: (_prepared, { release }) => release.hooks.after.length > 0,
    perform: (project, prepared) =>
      runHooks(project, 'after', {
        tag: prepared.tag,
        version: prepared.version,
        branch: prepared.branch,
        image: registryReference(project, prepared.tag) ?? imageReference(project, prepared.tag),
        previous: prepared.previous ?? '',
        commit: prepared.commit,
        digest: prepared.digest,
      }),
  },
];

/** The branch may be another one by now, or further: then its work tree is not ours to touch. */
async function followWorkTree(project: Project, { from, commit, merge }: PreparedRelease): Promise<void> {
  const { root } = project;
  if (session.dryRun) return updateWorkTree(root, from, commit);
  const head = await resolveRevision(root, 'HEAD');
  if (head === commit) await updateWorkTree(root, from, commit);
  if (merge && head === merge.to) await updateWorkTree(root, merge.from, merge.to);
}

/** Gives the tried image its version's name; builds it again from the commit if it was lost meanwhile. */
async function nameImage(project: Project, prepared: PreparedRelease): Promise<void> {
  const reference = imageReference(project, prepared.tag);
  const candidate = candidateReference(project, prepared.commit);
  if (session.dryRun) return tagImage(candidate, reference);
  const present = await inspectImage(reference);
  if (present && releasedDigests(prepared).includes(present.id)) return;
  if (present) throw imageDiffers(prepared, reference, present.id);
  const tried = await inspectImage(candidate);
  if (tried?.id !== prepared.digest) await rebuild(project, prepared, candidate);
  await tagImage(candidate, reference);
}

async function rebuild(project: Project, prepared: PreparedRelease, candidate: string): Promise<void> {
  const { tag, version, commit, digest } = prepared;
  log.step(`build ${tag} again from commit ${shortHash(commit)}`);
  const names = Object.keys(prepared.platforms);
  const platforms = prepared.push || names.length > 1 ? names : [];
  const isIndex = !Object.values(prepared.platforms).includes(digest);
  const image = await buildCommit(project, await engineInfo(), {
    commit,
    version,
    candidate,
    ...(isIndex ? { platforms } : {}),
  });
  if (!isReleasedImage(prepared, image)) throw imageDiffers(prepared, candidate, image.id);
  if (releasedDigests(prepared).includes(image.id)) return;
  const why = 'the index was built again: same platforms, other provenance';
  await acceptRebuild(project.root, tag, {
    digest: image.id,
    released: digest,
    why,
    at: new Date().toISOString(),
  });
}

/** @throws TaskError if the registry has another image under the version */
function pushVersion(project: Project, prepared: PreparedRelease): Promise<string> {
  const reference = registryReference(project, prepared.tag) as string;
  return pushImage(imageReference(project, prepared.tag), reference, {
    immutable: true,
    same: [prepared.digest],
  });
}

function imageDiffers(prepared: PreparedRelease, reference: string, found: string): TaskError {
  return new TaskError(
    `The image ${reference} is not the one of ${prepared.tag}: it is ${found}, released was ${prepared.digest}`,
    {
      code: 'image-changed',
      hint: `docker image rm ${reference}, then run the release again to finish it`,
    },
  );
}
