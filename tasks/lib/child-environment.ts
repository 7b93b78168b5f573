// The environment that every process of ours gets. Programs are looked for beyond PATH, too: cron and launchd
// give little more than /usr/bin, and the engine's client may well lie elsewhere, put there by our own setup.
import { delimiter } from 'node:path';

const USUAL_PLACES = [
  ...['/usr/local/bin', '/usr/bin', '/bin'],
  ...['/usr/local/sbin', '/usr/sbin', '/sbin', '/opt/homebrew/bin'],
];

/** This process's environment with `extra` laid over it; undefined removes a variable. */
export function childEnvironment(extra: Record<string, string | undefined> = {}): NodeJS.ProcessEnv {
  const PATH = searchPath(extra.PATH ?? process.env.PATH);
  const merged: NodeJS.ProcessEnv = { ...process.env, ...extra, PATH };
  for (const [name, value] of Object.entries(merged)) if (value === undefined) delete merged[name];
  return merged;
}

/** `path` with the usual places behind it: what PATH itself names is found first. */
export function searchPath(path = ''): string {
  return [...new Set([...path.split(delimiter).filter(Boolean), ...USUAL_PLACES])].join(delimiter);
}
