// Running a command of the backup program: in the session that the call belongs to, or in a container of its own.
import { createHash } from 'node:crypto';
import { basename, dirname, resolve, sep } from 'node:path';
import { type output, z } from 'zod';
import { type Command, connect, describeCommand } from '../command.ts';
import { docker } from '../docker/engine.ts';
import { type Image, inspectImage } from '../docker/objects.ts';
import { TaskError, usageError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { log } from '../log.ts';
import {
  dataDirectory,
  ENVIRONMENTS,
  imageReference,
  PROJECT_FILE,
  type Project,
  variable,
} from '../project.ts';
import { newestRelease } from '../release/record.ts';
import { interruptSignal, pause, session, throwIfInterrupted } from '../session.ts';

/** A killed run's program needs a moment to notice. */
const BUSY_RETRIES = 12;
const BUSY_PAUSE_MS = 250;

export interface ProgramCall extends Call {
  /** Carries it out if it can: it has the mounts and the rights. */
  within?: ProgramSession | undefined;
}

/** In a container of its own. */
async function performAlone(project: Project, call: Call): Promise<unknown> {
  const talk = await openTalk(project, call);
  try {
    const answer = await talk.answer(call);
    const result = answer && resultOf(answer);
    const end = await talk.end();
    throwIfInterrupted();
    if (!result) throw whyEnded(call, end);
    return result;
  } finally {
    await talk.end();
  }
}

/** Runs a command of the program that only looks. @throws TaskError with the program's own words */
export async function askProgram<T>(
  project: Project,
  { within, ...call }: ProgramCall,
  schema: z.ZodType<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return schema.parse((await within?.perform(call)) ?? (await performAlone(project, call)));
    } catch (error) {
      const isBusy = error instanceof TaskError && error.code === 'backup-running';
      if (!isBusy || attempt > BUSY_RETRIES) throw error;
      await pause(BUSY_PAUSE_MS);
    }
  }
}

/** The same for one that changes something: under --dry-run it is only printed, and undefined returned. */
export async function runProgram<T>(project: Project, call: ProgramCall, schema: z.ZodType<T>) {
  if (!session.dryRun) return askProgram(project, call, schema);
  log.withhold(`run: ${describeCommand(programCommand(project, call))}`);
  return undefined;
}

// The `docker run` of the backup program: what it may see, whom it may become, and nothing more.

interface Call {
  /** Image that has the program. */
  image: string;
  command: string;
  options: Record<string, unknown>;
  /** The engine makes the backup directory where it is missing. */
  makesBackups?: boolean;
  /** Path in the container → directory on the engine's machine; `:ro` at its end mounts read-only. */
  mounts: Record<string, string>;
  /** Name of its container, where a later run has to find it. */
  name?: string;
  /** It acts on files of any owner. */
  asRoot?: boolean;
  /** Joins a container's network; default: none at all. */
  network?: string;
  /** Answers what the program asks: `pause` and `thaw`. */
  answer?: (question: 'pause' | 'thaw') => Promise<string>;
}

/** Where the program finds the backup directory. */
export const BACKUPS = '/backups';
export const DATA = '/data';

/** Enough to become the data's owner, and to hand a new backup directory over to it. */
const CAPABILITIES = ['SETUID', 'SETGID', 'CHOWN'];
const ROOT_CAPABILITIES = ['CHOWN', 'FOWNER', 'DAC_OVERRIDE'];
/** Beside the writers, not in front of them. */
const CPU_SHARES = 256;
export function backupLabel(project: Project): string {
  return `release-flow.backup=${project.project.name}`;
}

/** The `docker run` of a call: no network, a read-only root, and no more rights than the call needs. */
function programCommand(project: Project, call: Call): Command {
  const [entrypoint = '', ...argv] = project.backup.program;
  const mounts = Object.entries(call.mounts).map(([target, source]) =>
    // Anything else that is missing is a mistake.
    target === BACKUPS && call.makesBackups
      ? `--volume=${source}:${target}`
      : `--mount=type=bind,source=${source.replace(/:ro$/, ',readonly')},target=${target}`,
  );
  return docker(
    'run',
    '--rm',
    '--interactive',
    '--init',
    '--label',
    backupLabel(project),
    ...(call.name ? ['--name', call.name] : []),
    `--network=${call.network ?? 'none'}`,
    '--read-only',
    '--tmpfs=/tmp:mode=1777',
    '--cap-drop=ALL',
    ...(call.asRoot ? ROOT_CAPABILITIES : CAPABILITIES).map((name) => `--cap-add=${name}`),
    '--security-opt=no-new-privileges',
    '--user=0:0',
    `--cpu-shares=${CPU_SHARES}`,
    ...mounts,
    `--entrypoint=${entrypoint}`,
    call.image,
    ...argv,
    call.command,
    JSON.stringify({ ...call.options, attached: true }),
  );
}

// What the backup program prints (service/backup/report.ts), checked at this edge: it runs in an image that may
// be older or newer than these tasks.

const Line = z.discriminatedUnion('event', [
  z.object({ event: z.literal('note'), message: z.string() }),
  z.object({ event: z.literal('warn'), message: z.string() }),
  z.object({ event: z.literal('progress'), phase: z.string(), done: z.number(), total: z.number() }),
  z.object({ event: z.literal('ready') }),
  z.object({ event: z.literal('pause') }),
  z.object({ event: z.literal('thaw') }),
  z.object({ event: z.literal('error'), code: z.string(), message: z.string(), hint: z.string().optional() }),
  z.looseObject({ event: z.literal('result') }),
]);
type Line = output<typeof Line>;

const ArchiveRecord = z.object({
  archive: z.string(),
  source: z.enum(['created', 'adopted']),
  at: z.string(),
  version: z.string(),
  dataFormat: z.int().nullable(),
  bytes: z.number(),
  dataBytes: z.number(),
  files: z.number(),
  databases: z.number(),
  proof: z.object({ at: z.string(), seconds: z.number(), rehearsed: z.string().nullable() }).nullable(),
  problems: z.array(z.string()),
});

export const Listed = z.object({
  archive: z.string(),
  time: z.string(),
  version: z.string(),
  bytes: z.number(),
  record: ArchiveRecord.nullable(),
});
/** An archive in the backup directory; without a record it was neither made nor verified here. */
export type Listed = output<typeof Listed>;

export const CreatedArchive = ArchiveRecord.extend({
  cut: z.object({ heldMs: z.number(), attempts: z.number(), paused: z.boolean() }),
  blocked: z.record(z.string(), z.number()),
  skipped: z.array(z.object({ path: z.string(), reason: z.string() })),
  seconds: z.number(),
  owner: z.object({ uid: z.number(), gid: z.number() }),
  proofSeconds: z.number(),
  peakMegabytes: z.number(),
  /** All that are there now, this one included; an older program does not say. */
  archives: z.array(Listed).optional(),
});
export type CreatedArchive = output<typeof CreatedArchive>;

export const Listing = z.object({ archives: z.array(Listed), free: z.number() });

const Summary = z.object({
  origin: z.object({ project: z.string(), version: z.string(), image: z.string(), revision: z.string() }),
  at: z.string(),
  dataFormat: z.int().nullable(),
  owner: z.object({ uid: z.number(), gid: z.number() }),
  files: z.number(),
  bytes: z.number(),
});
export type Summary = output<typeof Summary>;

const Verdict = z.object({
  archive: z.string(),
  ok: z.boolean(),
  problems: z.array(z.string()),
  seconds: z.number(),
  manifest: Summary.nullable(),
});
export type Verdict = output<typeof Verdict>;
export const Verdicts = z.object({ verdicts: z.array(Verdict) });

export const Removed = z.object({ removed: z.array(z.string()) });
export const Unpacked = z.object({ manifest: Summary });
export const Preview = z.object({
  problems: z.array(z.string()),
  manifest: Summary.nullable(),
  present: z.object({
    exists: z.boolean(),
    entries: z.number(),
    files: z.number(),
    bytes: z.number(),
    uid: z.number(),
    gid: z.number(),
  }),
  free: z.number(),
});
export const Asked = z.object({ status: z.number(), body: z.string() });
export const Nothing = z.object({});

// One container of the program for several commands: its start and end cost more than most of what it is asked.
// Where there can be none, each command gets a container of its own, and says itself why that fails.

export interface ProgramSession {
  /** The program's answer; undefined where there is no session. @throws TaskError in the program's words */
  perform: (call: Call) => Promise<unknown>;
}

/** What all of its commands share. */
type SessionCall = Pick<Call, 'image' | 'mounts' | 'asRoot' | 'name' | 'network' | 'makesBackups'>;

/** Asks it to carry a command out; undefined if it cannot any more. */
async function request(talk: Talk, call: Call): Promise<unknown> {
  throwIfInterrupted();
  if (talk.isOver()) return undefined;
  log.detail(`> ${call.command} ${JSON.stringify(call.options)}`);
  talk.say(JSON.stringify({ command: call.command, options: call.options }));
  const answer = await talk.answer(call);
  if (answer && !talk.isOver()) return resultOf(answer);
  const end = await talk.end();
  throwIfInterrupted();
  if (!answer) throw whyEnded(call, end);
  return resultOf(answer);
}

/** Ctrl-C stops what is under way, and with it the session; one that waits lasts, undoing may still need it. */
async function stoppable<T>(stop: () => void, work: () => Promise<T>): Promise<T> {
  throwIfInterrupted();
  const signal = interruptSignal();
  signal?.addEventListener('abort', stop);
  try {
    return await work();
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}

/** Runs `work` with a session, which begins with its first command and ends however `work` ends. */
export async function withSession<T>(
  project: Project,
  shared: SessionCall,
  work: (session: ProgramSession) => Promise<T>,
): Promise<T> {
  const call: Call = { ...shared, command: 'session', options: shared.asRoot ? { root: true } : {} };
  let talk: Talk | undefined;
  const begin = async () => {
    talk = await openTalk(project, call, { lasting: true });
    // An image may be older than these tasks: its program refuses the command instead of greeting.
    if ((await talk.answer(call))?.event !== 'ready') await talk.end();
    return talk;
  };
  const end = () => talk?.end();
  const perform = (asked: Call) =>
    stoppable(
      () => void end(),
      async () => request(talk ?? (await begin()), asked),
    );
  try {
    return await work({ perform });
  } finally {
    await end();
  }
}

// Talking with the backup program: JSON lines on its stdout, answers and requests on its stdin. When this task dies,
// its stdin ends and it cleans up.

interface Talk {
  say: (text: string) => void;
  /** What the program answers to a command; undefined if it has ended without. */
  answer: (call: Call) => Promise<Answer | undefined>;
  /** Lets the program end and waits for that; never rejects. */
  end: () => Promise<{ exitCode: number; stderr: string }>;
  isOver: () => boolean;
}

type Answer = Extract<Line, { event: 'result' | 'error' | 'ready' }>;

async function takeLine(call: Call, line: Line, say: (text: string) => void): Promise<Answer | undefined> {
  if (line.event === 'result' || line.event === 'error' || line.event === 'ready') return line;
  if (line.event === 'progress') progress.show(line.phase, line.done, line.total);
  else progress.clear();
  if (line.event === 'note') log.info(line.message);
  if (line.event === 'warn') log.warn(line.message);
  if (line.event === 'pause' || line.event === 'thaw') say((await call.answer?.(line.event)) ?? 'no');
  return undefined;
}

async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of stream) {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The result of a command. @throws TaskError with the program's own words */
function resultOf(answer: Answer): unknown {
  if (answer.event !== 'error') return answer;
  throw new TaskError(answer.message, { code: answer.code, hint: answer.hint });
}

/** Why the program ended without an answer. */
function whyEnded({ image }: Call, { exitCode, stderr }: { exitCode: number; stderr: string }) {
  const tail = stderr.trim().split('\n').slice(-5).join('\n');
  const noProgram = /Cannot find module|executable file not found/.test(stderr);
  const noSource = /bind source path does not exist/.test(stderr);
  return new TaskError(`The backup program ended with exit code ${exitCode}${tail ? `:\n${tail}` : ''}`, {
    code: noProgram ? 'no-program' : noSource ? 'no-directory' : 'program-failed',
    hint: noProgram
      ? `${image} has no backup program: name an image that has one, [backup] image in configs/release.toml`
      : noSource
        ? 'the directory is not on the engine’s machine'
        : undefined,
  });
}

/** A running program as lines in both directions. */
function connectTo(project: Project, call: Call, lasting: boolean) {
  const { stream, closed } = connect(programCommand(project, call), { lasting });
  const lines = linesOf(stream);
  const next = () => lines.next().catch(() => ({ done: true as const, value: undefined }));
  let over = false;
  // How it ended is told by its exit code and what it said on stderr.
  stream.on('error', () => {});
  void closed.then(() => {
    over = true;
  });
  const end = async () => {
    progress.clear();
    over = true;
    stream.end();
    // Read to its end: with nobody to write to, the client would be gone before the container is.
    while (!(await next()).done);
    stream.destroy();
    return closed;
  };
  return { next, say: (text: string) => void stream.write(`${text}\n`), end, isOver: () => over };
}

/** Starts the program for a call. A `lasting` one outlives Ctrl-C, until it is ended. */
async function openTalk(project: Project, call: Call, { lasting = false } = {}): Promise<Talk> {
  const { next, say, end, isOver } = connectTo(project, call, lasting);
  // It waits for what it asked, and cannot be asked anything else.
  const giveUp = async (error: unknown) => {
    await end();
    throw error;
  };
  const answer = async (asked: Call) => {
    for (;;) {
      const line = await next();
      if (line.done) return undefined;
      const parsed = Line.safeParse(parse(line.value));
      const found = parsed.success ? await takeLine(asked, parsed.data, say).catch(giveUp) : undefined;
      if (found) return found;
    }
  };
  return { say, answer, end, isOver };
}

// Which directories a backup reads and writes, on the engine's machine, and which image does it.

/** The backup directory, absolute: .env beats release.toml. */
export function backupDirectory(project: Project): string {
  return resolve(project.root, variable(project, 'BACKUP_DIR') ?? project.backup.directory);
}

function isInside(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(outer.endsWith(sep) ? outer : outer + sep);
}

/** @throws TaskError (exit 2) where one directory lies in the other, or a name cannot be mounted */
export function verifyDirectories(project: Project): void {
  const [data, backups] = [dataDirectory(project), backupDirectory(project)];
  if (isInside(backups, data) || isInside(data, backups))
    throw usageError(`The backup directory ${backups} and the data directory ${data} lie in each other`, {
      code: 'config-invalid',
      hint: 'choose another [backup] directory: a restore swaps the whole data directory',
    });
  const odd = [data, backups].find((path) => /[:,"]/.test(path));
  if (odd)
    throw usageError(`${odd} cannot be mounted: its name has one of : , "`, { code: 'config-invalid' });
}

/** Directory and name of the data directory: a restore works beside it. */
export function dataPlace(project: Project): { parent: string; name: string } {
  const path = dataDirectory(project);
  return { parent: dirname(path), name: basename(path) };
}

export interface BackupImage {
  /** The image that has the program. */
  program: string;
  /** The release whose data this is; its name is part of an archive's. */
  version: string;
  /** The application's own image, undefined if it is not here. */
  app: Image | undefined;
  appReference: string;
}

/** The images of a backup. @throws TaskError when the one with the program is missing */
export async function backupImage(project: Project): Promise<BackupImage> {
  const tag = variable(project, 'PROD_TAG') ?? (await newestRelease(project)) ?? 'latest';
  const appReference = imageReference(project, tag);
  const app = await inspectImage(appReference);
  const program = project.backup.image ?? appReference;
  if (!project.backup.image ? app : await inspectImage(program))
    return { program, version: tag, app, appReference };
  throw new TaskError(`The image ${program} is not on this machine`, {
    code: 'image-missing',
    hint: project.backup.image
      ? `pull or build it: [backup] image in configs/release.toml names it`
      : `npm run build-push -- ${tag}   builds it`,
  });
}

// What an archive says about where it comes from: release, image, commit and configuration.

const REVISION_LABEL = 'org.opencontainers.image.revision';

/** SHA-256 over everything that configures the service; the secrets in .env are no part of it. */
async function configHash(project: Project): Promise<string> {
  const services = ENVIRONMENTS.flatMap((name) => project.environments[name].config ?? []);
  const hash = createHash('sha256');
  for (const file of [PROJECT_FILE, ...project.project.compose, ...services]) {
    const text = await readIfPresent(resolve(project.root, file));
    hash.update(`${file}\0${text ?? ''}\0`);
  }
  return hash.digest('hex');
}

export async function backupOrigin(project: Project, { version, app, appReference }: BackupImage) {
  return {
    project: project.project.name,
    version,
    image: appReference,
    imageDigest: app?.id ?? '',
    revision: app?.labels[REVISION_LABEL] ?? '',
    configHash: await configHash(project),
  };
}

// One line on a terminal that is drawn over and over; nothing anywhere else.

const WIDTH = 24;

export function megabytes(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** `archive ████░░░░ 512.0 MB of 1.08 GB`; without a total only what is done. Pure. */
export function progressLine(phase: string, done: number, total: number): string {
  if (total <= 0) return `${phase} ${megabytes(done)}`;
  const filled = Math.min(WIDTH, Math.round((done / total) * WIDTH));
  const bar = '█'.repeat(filled) + '░'.repeat(WIDTH - filled);
  return `${phase} ${bar} ${megabytes(done)} of ${megabytes(total)}`;
}

const isShown = () => Boolean(process.stderr.isTTY) && process.env.TERM !== 'dumb';

const progress = {
  show: (phase: string, done: number, total: number) => {
    if (isShown()) process.stderr.write(`\r\u001b[K${progressLine(phase, done, total)}`);
  },
  clear: () => {
    if (isShown()) process.stderr.write('\r\u001b[K');
  },
};
