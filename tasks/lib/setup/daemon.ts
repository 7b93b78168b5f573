// Starting and stopping dockerd: by systemd where it is the init, else as a detached process of our own,
// in the standard places or in private ones (tests, a second engine on one machine).
import { open, readFile, stat } from 'node:fs/promises';
import { type Command, probe, run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { makeDirectory, readIfPresent } from '../files.ts';
import { pause, session } from '../session.ts';

/** Where one daemon lives. Two on one machine share none of these paths. */
export interface DaemonPlace {
  host: string;
  dataRoot: string;
  execRoot: string;
  pidFile: string;
  logFile: string;
  /** A network namespace under /run/netns: two daemons in one would take each other's bridge away. */
  namespace?: string;
  /** Further flags of dockerd. */
  flags?: readonly string[];
}

export const STANDARD_PLACE: DaemonPlace = {
  host: 'unix:///var/run/docker.sock',
  dataRoot: '/var/lib/docker',
  execRoot: '/var/run/docker',
  pidFile: '/var/run/docker.pid',
  logFile: '/var/log/dockerd.log',
};

const READY_WITHIN_MS = 60_000;
const POLL_MS = 200;
/** A dockerd that has no process after this long has died of its configuration. */
const GRACE_MS = 2_000;

/** The arguments that start a detached dockerd: start-stop-daemon is part of every Debian. */
export function daemonCommand(place: DaemonPlace, dockerd: string, nsenter = '/usr/bin/nsenter'): Command {
  const daemon = [
    ...['--host', place.host, '--data-root', place.dataRoot, '--exec-root', place.execRoot],
    ...['--pidfile', place.pidFile, ...(place.flags ?? [])],
  ];
  const entered = place.namespace ? [`--net=/run/netns/${place.namespace}`, dockerd] : [];
  return [
    'start-stop-daemon',
    ...['--start', '--oknodo', '--background', '--pidfile', place.pidFile, '--exec', dockerd],
    ...['--startas', place.namespace ? nsenter : dockerd, '--output', place.logFile],
    ...['--', ...entered, ...daemon],
  ];
}

/** A root daemon runs the system's programs, never those of a project folder on our PATH. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The daemon outlives us and shows its environment to whoever may read it, so it gets what it needs to
 * find proxies and certificates, and no secret of the shell that started it.
 */
function daemonEnvironment(): Record<string, string | undefined> {
  const needed = /^(HOME|TMPDIR|LANG|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR))$/i;
  const kept = Object.entries(process.env).map(([name, value]) => [
    name,
    needed.test(name) ? value : undefined,
  ]);
  return { ...Object.fromEntries(kept), PATH: SYSTEM_PATH };
}

async function processName(pid: string): Promise<string | undefined> {
  return (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => undefined))?.trim();
}

/** A pid file of a dead daemon, whose number another process may have today, would prevent the start. */
async function removeStalePidFile(path: string, program: string): Promise<void> {
  const pid = (await readIfPresent(path))?.trim();
  if (pid !== undefined && (await processName(pid)) !== program) await run(['rm', '-f', path]);
}

async function isAlive(place: DaemonPlace): Promise<boolean> {
  const pid = (await readIfPresent(place.pidFile))?.trim();
  return pid !== undefined && (await processName(pid)) === 'dockerd';
}

async function answers(host: string): Promise<boolean> {
  const server = ['docker', '--host', host, 'version', '--format', '{{.Server.Version}}'] as const;
  return (await probe(server, { timeoutMs: 5_000 })).ok;
}

async function waitUntilReady(place: DaemonPlace, alive: () => Promise<boolean>): Promise<boolean> {
  const began = Date.now();
  while (Date.now() - began < READY_WITHIN_MS) {
    if (await answers(place.host)) return true;
    if (Date.now() - began > GRACE_MS && !(await alive())) return false;
    await pause(POLL_MS);
  }
  return false;
}

/**
 * Starts a detached dockerd and waits until it answers; a running one is left as it is.
 * @throws TaskError `engine-start-failed` with the log's last lines
 */
export async function startDaemon(place: DaemonPlace = STANDARD_PLACE): Promise<void> {
  const dockerd = (await probe(['which', 'dockerd'])).stdout.trim() || '/usr/local/bin/dockerd';
  await removeStalePidFile(place.pidFile, 'dockerd');
  await removeStalePidFile(`${place.execRoot}/containerd/containerd.pid`, 'containerd');
  await makeDirectory(place.dataRoot, 0o710);
  const logged = await logSize(place.logFile);
  await run(daemonCommand(place, dockerd), { env: daemonEnvironment() });
  if (session.dryRun || (await waitUntilReady(place, () => isAlive(place)))) return;
  throw new TaskError(`dockerd did not become ready:\n${await logTail(place.logFile, logged)}`, {
    code: 'engine-start-failed',
    hint: `The whole log: ${place.logFile}`,
  });
}

/** Stops a dockerd that `startDaemon` started, and its containers with it; a no-op if none runs. */
export async function stopDaemon(place: DaemonPlace = STANDARD_PLACE): Promise<void> {
  if (!(await isAlive(place))) return;
  await run([
    'start-stop-daemon',
    '--stop',
    '--pidfile',
    place.pidFile,
    '--name',
    'dockerd',
    '--retry',
    '30',
  ]);
}

/** @throws TaskError `engine-start-failed` with the journal's last lines */
export async function startService(): Promise<void> {
  const started = run(['systemctl', 'enable', '--now', 'docker.service']);
  const failed = await started.then(() => false).catch(() => true);
  if (session.dryRun || (!failed && (await waitUntilReady(STANDARD_PLACE, async () => true)))) return;
  const journal = await probe(['journalctl', '--unit=docker', '--lines=12', '--no-pager', '--output=cat']);
  throw new TaskError(`docker.service did not become ready:\n${journal.stdout}`, {
    code: 'engine-start-failed',
    hint: 'The whole log: journalctl -u docker',
  });
}

export async function stopService(): Promise<void> {
  await run(['systemctl', 'stop', 'docker.socket', 'docker.service'], { okExitCodes: [5] });
}

// The end of a log file that another process writes: what a person needs to see when that process failed.

/** Bytes; 0 if there is no such file. */
async function logSize(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0;
}

/** The last lines that were written after byte `from`, i.e. by this run and no earlier one. */
async function logTail(path: string, from: number, lines = 12): Promise<string> {
  const file = await open(path).catch(() => undefined);
  if (!file) return `(no log in ${path})`;
  try {
    const { size } = await file.stat();
    const start = Math.max(from, size - 8192);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - start), 0, size - start, start);
    return buffer.subarray(0, bytesRead).toString().trimEnd().split('\n').slice(-lines).join('\n');
  } finally {
    await file.close();
  }
}
