// Trying again what a registry, a network or the engine refused for the moment, and only that: a wrong password or a
// full disk will not change by waiting. Bounded, with growing pauses.
import { CommandError, errorSummary } from '../errors.ts';
import { pause } from '../interrupt.ts';
import { log } from '../log.ts';

const PAUSES_MS: readonly number[] = [300, 1000, 3000];

/** What passes by itself: rate limits, a server's own errors, names that do not resolve, broken connections. */
const TRANSIENT: readonly (readonly [RegExp, string])[] = [
  [/(?:^|[\s:(])429(?:[\s,:;)]|$)|too ?many ?requests/im, 'the registry limits requests'],
  [
    /(?:^|[\s:(])50[0234](?:[\s,:;)]|$)|internal server error|bad gateway|service unavailable|gateway time-?out/im,
    'the registry fails',
  ],
  [
    /no such host|temporary failure in name resolution|server misbehaving|EAI_AGAIN/i,
    'the name does not resolve',
  ],
  [
    /connection (refused|reset)|broken pipe|unexpected EOF|\bEOF$|i\/o timeout|TLS handshake timeout|network is unreachable|deadline exceeded/im,
    'the connection breaks',
  ],
];

/** Why a failure will probably pass, or undefined if it will not. Pure. */
export function transientReason(message: string): string | undefined {
  if (/unauthorized|authentication required|access denied|no basic auth/i.test(message)) return undefined;
  return TRANSIENT.find(([pattern]) => pattern.test(message))?.[1];
}

/** Runs `work` up to four times, as long as it fails of something that passes. */
export async function withRetries<T>(what: string, work: () => Promise<T>): Promise<T> {
  for (const wait of PAUSES_MS) {
    try {
      return await work();
    } catch (error) {
      const reason = transientReason(error instanceof Error ? error.message : '');
      if (!reason || (error as { code?: string }).code === 'interrupted') throw error;
      log.warn(`${what}: ${reason} (${errorSummary(error)}); trying again in ${wait / 1000} s`);
      await pause(wait);
    }
  }
  return work();
}

const ENGINE_TRIES = 5;
const ENGINE_PAUSE_MS = 200;

/** Runs `work` up to five times, as long as the engine's words (`passing`) are those of a failure that passes. */
export async function withEngineRetries(passing: RegExp, work: () => Promise<unknown>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await work();
      return;
    } catch (error) {
      const passes = error instanceof CommandError && passing.test(error.stderr);
      if (!passes || tries === ENGINE_TRIES) throw error;
      log.warn(`the engine failed for a moment (${errorSummary(error)}); trying again`);
      await pause(ENGINE_PAUSE_MS);
    }
  }
}
