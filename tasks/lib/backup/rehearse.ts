// The last proof: the released image is started on what an archive brings back, alone and without a network,
// and asked how it is. What it writes is thrown away.
import { randomBytes } from 'node:crypto';
import { probe, run } from '../command.ts';
import { docker, parseJson } from '../docker/client.ts';
import { resolvedConfig } from '../docker/compose-config.ts';
import { inspectContainers, lastLogLines } from '../docker/containers.ts';
import { healthProblems } from '../docker/health.ts';
import { TaskError } from '../errors.ts';
import { pause, uninterrupted } from '../interrupt.ts';
import { log } from '../log.ts';
import { dataDirectory, type Project } from '../project.ts';
import { session } from '../session.ts';
import { placesOf } from './archives.ts';
import { type BackupImage, backupDirectory } from './places.ts';
import { askProgram, type ProgramCall, runProgram } from './program.ts';
import { BACKUPS, backupLabel } from './program-command.ts';
import { withSession } from './program-session.ts';

/** Where the service expects its data inside the container: the compose file knows. */
async function dataTarget(project: Project): Promise<string> {
  const { z } = await import('#zod');
  const volume = z.object({ source: z.string().optional(), target: z.string() });
  const schema = z.object({
    services: z.record(z.string(), z.object({ volumes: z.array(volume).default([]) })),
  });
  const config = parseJson(await resolvedConfig(project, 'rehearsal'));
  const { volumes } = schema.parse(config).services[project.environments.prod.service] ?? { volumes: [] };
  const target = volumes.find(({ source }) => source === dataDirectory(project))?.target;
  if (target ?? project.candidate.volumes[0]) return (target ?? project.candidate.volumes[0])!;
  throw new TaskError('Cannot rehearse: nothing says where the service expects its data', {
    code: 'config-invalid',
    hint: '[candidate] volumes in configs/release.toml',
  });
}

interface Rehearsal {
  name: string;
  image: string;
  /** Directory on the engine's machine, and where the service expects it. */
  source: string;
  data: string;
  /** `uid:gid` of the data. */
  owner: string;
}

function serviceCommand(project: Project, { name, image, source, data, owner }: Rehearsal) {
  const { env, tmpfs } = project.candidate;
  return docker(
    'run',
    '--detach',
    '--name',
    name,
    '--label',
    backupLabel(project),
    '--network=none',
    '--read-only',
    '--init',
    '--cap-drop=ALL',
    '--security-opt=no-new-privileges',
    `--user=${owner}`,
    `--mount=type=bind,source=${source},target=${data}`,
    ...tmpfs.map((path) => `--tmpfs=${path}:mode=1777`),
    ...Object.entries(env).map(([key, value]) => `--env=${key}=${value}`),
    image,
  );
}

/** Asks the service through a container that shares its network, since nothing else reaches it. */
function askUntilHealthy(project: Project, image: string, name: string): Promise<void> {
  const network = `container:${name}`;
  return withSession(project, { image, mounts: {}, network }, async (within) => {
    const { port, health } = project.candidate;
    const options = { url: `http://127.0.0.1:${port}${health}` };
    await untilHealthy(project, name, { image, command: 'ask', options, mounts: {}, network, within });
  });
}

async function untilHealthy(project: Project, name: string, call: ProgramCall): Promise<void> {
  const { Asked } = await import('./program-schema.ts');
  const { timeout } = project.candidate;
  const deadline = Date.now() + timeout * 1000;
  for (;;) {
    const [container] = await inspectContainers([name]);
    if (container?.state !== 'running')
      throw new TaskError(`its container ended with exit code ${container?.exitCode ?? '(gone)'}`);
    const { status, body } = await askProgram(project, call, Asked);
    const answer = { status, body: (parseJson(body) ?? {}) as Record<string, unknown>, error: body };
    const problems = healthProblems(project.health, answer, {});
    if (problems.length === 0) return;
    if (Date.now() > deadline) throw new TaskError(`${problems.join('; ')}, after ${timeout} s`);
    await pause(200);
  }
}

async function startAndAsk(project: Project, program: string, rehearsal: Rehearsal): Promise<void> {
  const { name } = rehearsal;
  try {
    await run(serviceCommand(project, rehearsal));
    if (!session.dryRun) await askUntilHealthy(project, program, name);
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const logs = await lastLogLines(name).catch(() => '');
    throw new TaskError(
      `The rehearsal failed: ${rehearsal.image} does not run on what the archive brings back: ${error.message}${logs ? `\nIts last log lines:\n${logs.replace(/^/gm, '    ')}` : ''}`,
      { code: 'rehearsal-failed', hint: 'the archive is kept, but the service would not start from it' },
    );
  } finally {
    await uninterrupted(async () => {
      if (!session.dryRun) await probe(docker('rm', '--force', '--volumes', name));
    });
  }
}

/** What the program's commands here have in common. */
type Shared = Omit<ProgramCall, 'command' | 'options'>;

/** What it brings back is gone afterwards. */
async function tryOut(project: Project, image: BackupImage, archive: string, shared: Shared): Promise<void> {
  const { Nothing, Unpacked } = await import('./program-schema.ts');
  const id = randomBytes(4).toString('hex');
  const scratch = `.${project.project.name}-scratch-rehearsal-${id}`;
  const place = { parent: BACKUPS, name: scratch, project: project.project.name };
  log.step(`rehearsing: starting ${image.appReference} on what ${archive} brings back`);
  try {
    const unpack = { ...shared, command: 'unpack', options: { archive: `${BACKUPS}/${archive}`, ...place } };
    const unpacked = await runProgram(project, unpack, Unpacked);
    const { uid, gid } = unpacked?.manifest.owner ?? { uid: 0, gid: 0 };
    await startAndAsk(project, image.program, {
      name: `${project.project.name}-rehearsal-${id}`,
      image: image.appReference,
      source: `${backupDirectory(project)}/${scratch}`,
      data: await dataTarget(project),
      owner: `${uid}:${gid}`,
    });
  } finally {
    await uninterrupted(() =>
      runProgram(project, { ...shared, command: 'discard', options: place }, Nothing),
    );
  }
}

async function recordRehearsal(project: Project, archive: string, shared: Shared): Promise<void> {
  const { Nothing } = await import('./program-schema.ts');
  const options = { ...placesOf(project).options, archive, at: new Date().toISOString() };
  await runProgram(project, { ...shared, command: 'rehearsed', options }, Nothing);
}

/** Restores an archive aside, starts the released image on it, and records that it answered. @throws TaskError */
export async function rehearse(project: Project, image: BackupImage, archive: string): Promise<void> {
  const mounts = { [BACKUPS]: backupDirectory(project) };
  const shared = { image: image.program, mounts, asRoot: true };
  await withSession(project, shared, async (within) => {
    await tryOut(project, image, archive, { ...shared, within });
    await recordRehearsal(project, archive, { image: image.program, mounts, within });
  });
}
