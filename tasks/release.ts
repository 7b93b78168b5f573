// Makes a release: version → notes → image → tag, wholly or not at all.
//
// check → plan → show → confirm → apply → report. Everything that can fail happens before the one atomic
// step that moves the branch and creates the tag; what follows is finished by the next run if this one dies.
import {
  BUMPS,
  closeRelease,
  confirm,
  describeReleasePlan,
  describeUndo,
  editEntry,
  existingRelease,
  finishRelease,
  imageReference,
  interruptedRelease,
  loadProject,
  log,
  logPhases,
  type Phases,
  type PreparedRelease,
  type Project,
  performRelease,
  planRelease,
  planUndo,
  readRepository,
  resumeUndo,
  runOtherTask,
  runTask,
  shortHash,
  takeBack,
  usageError,
  verifyReleasable,
  withHistory,
  withLock,
} from './lib/mod.ts';

interface Options {
  requested: string | undefined;
  preid: string | undefined;
  push: boolean;
  deploy: boolean;
  edit: boolean;
  date: Date;
}

await runTask({
  name: 'release',
  summary: 'Make a release: version, notes, image and tag, wholly or not at all.',
  arguments: `[${BUMPS.join('|')}|X.Y.Z]`,
  maxArguments: 1,
  flags: {
    preid: { type: 'string', value: 'NAME', description: 'name of a prerelease, e.g. rc → 1.2.0-rc.0' },
    push: { type: 'boolean', description: 'publish it: image to the registry, branch and tag to the remote' },
    deploy: { type: 'boolean', description: 'switch prod to it afterwards' },
    edit: { type: 'boolean', description: 'open the notes in $EDITOR before they are committed' },
    'notes-only': { type: 'boolean', description: 'print the notes that a release would get' },
    undo: {
      type: 'string',
      value: 'vX.Y.Z',
      description: 'take a release back; mark a published one withdrawn',
    },
  },
  examples: [
    'npx tsx tasks/release.ts patch',
    'npx tsx tasks/release.ts auto --push --deploy --yes',
    'npx tsx tasks/release.ts --undo v1.2.0',
  ],
  run: async ({ flags, positionals }) => {
    const project = await loadProject();
    const { preid, push, deploy, edit, undo } = flags;
    const options = { requested: positionals[0], preid, push, deploy, edit, date: new Date() };
    if (undo !== undefined && (positionals[0] || push || deploy || edit || flags['notes-only'])) {
      throw usageError('release: --undo stands alone', { hint: `tsx tasks/release.ts --undo ${undo}` });
    }
    if (undo !== undefined) return undoRelease(project, undo);
    if (flags['notes-only']) return printNotes(project, options);
    const { released, ...outcome } = await withLock(project.root, 'release', () => release(project, options));
    return released.deploy && !flags['dry-run'] ? deployed(project, released, outcome) : outcome;
  },
});

async function release(project: Project, options: Options) {
  await resumeUndo(project);
  const begun =
    (await interruptedRelease(project, options)) ??
    (await existingRelease(project, options.requested, options));
  if (begun) {
    const details = { from: begun.previous, to: begun.version };
    await withHistory(project.root, 'release', details, () => finishRelease(project, begun));
    return report(project, begun, { resumed: true });
  }

  const checked = await verifyReleasable(project, options);
  const { engine } = checked;
  log.info(describeReleasePlan(project, checked.plan, options));
  const plan = options.edit ? await editEntry(project, checked.plan) : checked.plan;
  await confirm(`Release ${plan.version.tag}?`);

  const phases: Phases = {};
  const details = { from: plan.version.current ?? null, to: plan.version.next, phases };
  const { push, deploy } = options;
  const released = await withHistory(project.root, 'release', details, () =>
    performRelease(project, { engine, plan, push, deploy, phases }),
  );
  logPhases(phases);
  return report(project, released, { current: plan.version.current ?? null, phases });
}

function report(project: Project, released: PreparedRelease, details: Record<string, unknown>) {
  const { tag, version, commit, digest, push } = released;
  const image = imageReference(project, tag);
  return {
    released,
    data: { version, tag, commit, digest, image, pushed: push, ...details },
    text: `Released ${tag}: commit ${shortHash(commit)}, image ${image}${push ? ', published' : ''}\nRun it:  npm run switch -- prod --version ${tag}`,
  };
}

/** A process of its own, with its own lock. Should this run die, the next one deploys; a failure is final. */
async function deployed(
  project: Project,
  { tag }: PreparedRelease,
  outcome: { data: Record<string, unknown> },
) {
  try {
    await runOtherTask(project, 'switch-env', 'prod', '--version', tag);
  } finally {
    await closeRelease(project);
  }
  return { data: { ...outcome.data, deployed: true }, text: `Released ${tag}; prod runs it` };
}

async function printNotes(project: Project, options: Options) {
  const request = { ...options, requested: options.requested ?? 'auto' };
  const { version, entry } = await planRelease(project, await readRepository(project), request);
  return { data: { version: version.next, tag: version.tag, notes: entry }, text: entry.trimEnd() };
}

async function undoRelease(project: Project, tag: string) {
  await withLock(project.root, 'release', () => resumeUndo(project));
  const plan = await planUndo(project, tag);
  log.info(describeUndo(project, plan));
  await confirm(`${plan.kind === 'remove' ? 'Take back' : 'Withdraw'} ${tag}?`);

  await takeBack(project, plan);
  const done = plan.kind === 'remove' ? 'Took back' : 'Withdrew';
  return { data: { tag, outcome: plan.kind, successor: plan.successor ?? null }, text: `${done} ${tag}` };
}
