// Starting and stopping dockerd: by systemd where it is the init, else as a detached process of our own, in the
// standard places or in private ones (tests, a second engine on one machine).

import { readFile, stat } from 'node:fs/promises';
import { probe, run } from '../command.ts';
import { lastLines, TaskError } from '../errors.ts';
import { makeDirectory, readIfPresent } from '../files.ts';
import { log } from '../log.ts';
import { waitUntil } from '../session.ts';

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
/** A daemon that has no process after this long has died of its configuration. */
const GRACE_MS = 2_000;
/** A root daemon runs the system's programs, never those of a project folder on our PATH. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Starts a detached dockerd and waits until it answers; a running one is left as it is.
 * @throws TaskError `engine-start-failed` with the log's last lines
 */
export async function startDaemon(place: DaemonPlace = STANDARD_PLACE): Promise<void> {
  const { pidFile, logFile, namespace } = place;
  const dockerd = (await probe(['which', 'dockerd'])).stdout.trim() || '/usr/local/bin/dockerd';
  await removeStalePidFile(pidFile, 'dockerd');
  await removeStalePidFile(`${place.execRoot}/containerd/containerd.pid`, 'containerd');
  await makeDirectory(place.dataRoot, 0o710);
  const logged = (await stat(logFile).catch(() => undefined))?.size ?? 0;
  // start-stop-daemon is part of every Debian.
  const options = ['--start', '--oknodo', '--background', '--pidfile', pidFile, '--exec', dockerd];
  const startAs = ['--startas', namespace ? '/usr/bin/nsenter' : dockerd, '--output', logFile, '--'];
  const entered = namespace ? [`--net=/run/netns/${namespace}`, dockerd] : [];
  const places = ['--host', place.host, '--data-root', place.dataRoot, '--exec-root', place.execRoot];
  const daemon = [...entered, ...places, '--pidfile', pidFile, ...(place.flags ?? [])];
  await run(['start-stop-daemon', ...options, ...startAs, ...daemon], { env: daemonEnvironment() });
  if (await isReady(place.host, () => isRunning(pidFile, 'dockerd'))) return;
  throw startFailed('dockerd', await logTail(logFile, logged), logFile);
}

/** Stops a dockerd that `startDaemon` started, and its containers with it; a no-op if none runs. */
export async function stopDaemon({ pidFile }: DaemonPlace = STANDARD_PLACE): Promise<void> {
  if (!(await isRunning(pidFile, 'dockerd'))) return;
  await run(['start-stop-daemon', '--stop', '--pidfile', pidFile, '--name', 'dockerd', '--retry', '30']);
}

/** @throws TaskError `engine-start-failed` with the journal's last lines */
export async function startService(): Promise<void> {
  await run(['systemctl', 'enable', '--now', 'docker.service'], { okExitCodes: [1, 5] });
  const isActive = async () => /^activ/.test((await probe(['systemctl', 'is-active', 'docker'])).stdout);
  if (await isReady(STANDARD_PLACE.host, isActive)) return;
  const journal = await probe(['journalctl', '--unit=docker', '--lines=12', '--no-pager', '--output=cat']);
  throw startFailed('docker.service', journal.stdout, 'journalctl -u docker');
}

function startFailed(name: string, lastLines: string, wholeLog: string): TaskError {
  return new TaskError(`${name} did not become ready:\n${lastLines}`, {
    code: 'engine-start-failed',
    hint: `the whole log: ${wholeLog}`,
  });
}

/** Waits until an engine answers at `host`; false if it died or took too long. */
async function isReady(host: string, isAlive: () => Promise<boolean>): Promise<boolean> {
  if (log.withhold(`wait until the engine answers at ${host}`)) return true;
  const question = ['docker', '--host', host, 'version', '--format', '{{.Server.Version}}'] as const;
  const began = Date.now();
  const ask = async () => {
    if ((await probe(question, { timeoutMs: 5_000 })).ok) return true;
    return Date.now() - began > GRACE_MS && !(await isAlive()) ? false : undefined;
  };
  return (await waitUntil(ask, { withinMs: READY_WITHIN_MS, everyMs: POLL_MS })) === true;
}

/**
 * The daemon outlives us and shows its environment to whoever may read it, so it gets what it needs to find proxies
 * and certificates, and no secret of the shell that started it.
 */
function daemonEnvironment(): Record<string, string | undefined> {
  const needed = /^(HOME|TMPDIR|LANG|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR))$/i;
  const removed = Object.keys(process.env).filter((name) => !needed.test(name));
  return { ...Object.fromEntries(removed.map((name) => [name, undefined])), PATH: SYSTEM_PATH };
}

/** True if the process that the file names runs, and is this program: its number may be another's today. */
async function isRunning(pidFile: string, program: string): Promise<boolean> {
  const pid = (await readIfPresent(pidFile))?.trim();
  const name = pid && (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => ''));
  return name?.trim() === program;
}

/** The pid file of a dead daemon would prevent the start if another process has its number. */
async function removeStalePidFile(path: string, program: string): Promise<void> {
  if ((await readIfPresent(path)) !== undefined && !(await isRunning(path, program)))
    await run(['rm', '-f', path]);
}

/** The last lines that were written after byte `from`, i.e. by this run and no earlier one. */
async function logTail(path: string, from: number): Promise<string> {
  const log = await readFile(path).catch(() => undefined);
  return log ? lastLines(log.subarray(from).toString(), 12) : `(no log in ${path})`;
}
