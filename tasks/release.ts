// Makes a release: version → notes → image → tag, all or nothing.
//
// check → plan → show → confirm → apply → report. Everything that can fail happens before the one atomic
// step that moves the branch and creates the tag; what follows is finished by the next run if this one dies.
import {
  BUMPS,
  confirm,
  confirmByName,
  describeReleasePlan,
  describeSteps,
  describeUndo,
  editEntry,
  existingRelease,
  imageReference,
  isComplete,
  loadProject,
  log,
  type Project,
  planRelease,
  planUndo,
  type ReleaseData,
  type ReleaseRequest,
  readRepository,
  releaseJourney,
  resumeRelease,
  resumeUndo,
  runSteps,
  runTask,
  shortHash,
  switchCommand,
  TaskError,
  type UndoData,
  undoJourney,
  usageError,
  verifyReleasable,
  verifyRequested,
  withLock,
} from './lib/mod.ts';

await runTask({
  name: 'release',
  summary: 'Make a release: version, notes, image and tag, all or nothing.',
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
      description: 'remove a release; mark a published one as withdrawn',
    },
  },
  examples: [
    'npm run release -- patch',
    'npm run release -- auto --push --deploy --yes',
    'npm run release -- --undo v1.2.0',
  ],
  run: async ({ flags, positionals }) => {
    const { preid, push, deploy, edit, undo } = flags;
    const request = { requested: positionals[0], preid, push, deploy, edit, date: new Date() };
    verifyFlags(request, undo, flags['notes-only']);
    const project = await loadProject();
    if (flags['notes-only']) return printNotes(project, request);
    if (undo !== undefined) return withLock(project.root, 'release', () => undoRelease(project, undo));
    return withLock(project.root, 'release', () => release(project, request));
  },
});

function verifyFlags(request: ReleaseRequest, undo: string | undefined, notesOnly: boolean): void {
  const { requested, preid, push, deploy, edit } = request;
  const acts = push || deploy || edit;
  if (undo !== undefined && (requested || preid || acts || notesOnly)) {
    throw usageError('release: --undo cannot be combined with other options', {
      hint: `npm run release -- --undo ${undo}`,
    });
  }
  if (notesOnly && acts) {
    throw usageError('release: --notes-only cannot be combined with --push, --deploy or --edit', {
      hint: 'npm run release -- --notes-only',
    });
  }
  verifyRequested(requested, preid);
}

async function release(project: Project, request: ReleaseRequest) {
  await resumeUndo(project);
  const resumed = await resumeRelease(project);
  if (resumed?.outcome === 'finished') {
    const { data } = resumed;
    // Flags of this run that the killed one did not have.
    const asksMore = (request.push && !data.push) || (request.deploy && !data.deploy);
    if (!asksMore) return report(project, data, { resumed: true });
  }
  const requested = resumed?.outcome === 'finished' ? resumed.data.version : request.requested;
  const existing = await existingRelease(project, requested, request);
  if (existing && (await isComplete(project, existing))) {
    log.info(`${existing.tag} is already released: nothing to do`);
    return report(project, existing, { resumed: true });
  }
  if (existing) {
    log.info(`${existing.tag} is already released; completing the remaining steps`);
    const { data } = await runSteps(releaseJourney(project), existing);
    return report(project, data, { resumed: true });
  }

  const { plan, model } = await verifyReleasable(project, request);
  const journey = releaseJourney(project, model);
  log.plan(describeReleasePlan(project, plan, describeSteps(journey.steps(plan.data))));
  if (plan.warning) log.warn(plan.warning);
  const planned = request.edit ? await editEntry(project, plan) : plan.data;
  await confirm(`Release ${planned.tag}?`);

  const { data, phases } = await runSteps(journey, planned);
  return report(project, data, { current: data.current, phases });
}

function report(project: Project, released: ReleaseData, details: Record<string, unknown>) {
  const { tag, version, commit, digest, push, deploy, failedDeploy, failedFollow } = released;
  if (failedDeploy) {
    const { message, code, hint } = failedDeploy;
    throw new TaskError(`${tag} is released, but the switch of prod failed: ${message}`, { code, hint });
  }
  const image = imageReference(project, tag);
  const data = { version, tag, commit, digest, image, pushed: push, ...details };
  const published = push ? ', published' : '';
  const runIt = deploy ? 'prod runs it' : `Run it:  ${switchCommand(project, 'prod', { version: tag })}`;
  const next = failedFollow
    ? `Dev does not start with it. Undo it:  npm run release -- --undo ${tag}`
    : runIt;
  return {
    data: deploy ? { ...data, deployed: true } : data,
    text: `Released ${tag}: commit ${shortHash(commit)}, image ${image}${published}\n${next}`,
  };
}

async function printNotes(project: Project, request: ReleaseRequest) {
  const named = { ...request, requested: request.requested ?? 'auto' };
  const { data, entry } = await planRelease(project, await readRepository(project), named);
  return { data: { version: data.version, tag: data.tag, notes: entry }, text: entry.trimEnd() };
}

async function undoRelease(project: Project, tag: string) {
  const resumed = await resumeUndo(project);
  if (resumed?.outcome === 'finished' && resumed.data.tag === tag) return reportUndo(resumed.data);
  const plan = await planUndo(project, tag);
  const journey = undoJourney(project);
  log.plan(describeUndo(plan, describeSteps(journey.steps(plan))));
  if (plan.kind === 'remove') await confirm(`Remove ${tag}?`);
  else await confirmByName(`Withdraw ${tag}?`, [tag]);
  const { data } = await runSteps(journey, plan);
  return reportUndo(data);
}

function reportUndo({ tag, kind, successor }: UndoData) {
  const done = kind === 'remove' ? 'Removed' : 'Withdrew';
  return { data: { tag, outcome: kind, successor }, text: `${done} ${tag}` };
}
