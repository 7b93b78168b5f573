// The plan of a release, or of its undoing, in words: what is shown before the question.
import { imageReference, type Project, registryReference } from '../project.ts';
import type { ReleasePlan } from './plan.ts';
import type { UndoPlan } from './undo.ts';

export function describeReleasePlan(
  project: Project,
  plan: ReleasePlan,
  { push, deploy }: { push: boolean; deploy: boolean },
): string {
  const { version, changes, image, branch, previousTag } = plan;
  const current = version.current ? `${project.release.tag_prefix}${version.current}` : undefined;
  const commits = `${changes.commits} commit${changes.commits === 1 ? '' : 's'}`;
  const latest = plan.movesLatest ? `, then ${imageReference(project, 'latest')}` : ' (latest stays)';
  return [
    `Release ${current ? `${current} → ` : ''}${version.tag}`,
    `  commits  ${commits} since ${previousTag ?? 'the beginning'}`,
    `  writes   ${project.release.notes}, one commit on ${branch}, tag ${version.tag}`,
    `  builds   ${image} from that commit${latest}`,
    ...(push ? pushLines(project, plan) : []),
    ...(deploy ? [`  deploys  ${version.tag} to prod`] : []),
    '',
    plan.entry.replace(/^/gm, '  │ ').trimEnd(),
  ].join('\n');
}

function pushLines(project: Project, { version, branch, movesLatest }: ReleasePlan): string[] {
  const reference = registryReference(project, version.tag);
  const platforms = project.image.platforms.length > 0 ? ` (${project.image.platforms.join(', ')})` : '';
  const image = reference
    ? [`  pushes   ${reference}${platforms}${movesLatest ? ' and latest' : ''}`]
    : ['  pushes   no image: image.registry is not set in configs/release.toml'];
  return [...image, `  pushes   ${branch} and ${version.tag} to ${project.release.remote}`];
}

/** The plan of an undoing in words. */
export function describeUndo(project: Project, plan: UndoPlan): string {
  const { tag, kind, successor, branch, parent } = plan;
  const { notes } = project.release;
  const goesTo = successor ?? 'nothing';
  const isLatest = plan.isLatest.local || plan.isLatest.registry;
  return [
    kind === 'remove'
      ? `Take back ${tag}: nobody else has it`
      : `Withdraw ${tag}: it was published, so its tag and image stay`,
    ...(plan.notes === undefined
      ? [`  moves    ${branch} back to ${parent.slice(0, 7)}, with ${notes}`]
      : [
          `  commits  ${notes} ${kind === 'remove' ? `without the entry; later commits stay` : 'with the mark'}`,
        ]),
    ...(kind === 'remove' ? [`  removes  tag ${tag} and image ${imageReference(project, tag)}`] : []),
    ...(isLatest ? [`  moves    latest to ${goesTo}`] : []),
    ...(plan.isProd ? [`  switches prod to ${goesTo}`] : []),
    ...(kind === 'withdraw' ? [`  pushes   ${branch} to ${project.release.remote}`] : []),
  ].join('\n');
}
