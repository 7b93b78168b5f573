// Automatic learning: which tool calls become episodes without anyone asking. Its own file because the
// rule is a promise that /health shows and tests hold: aggressive or moderate, and nothing in between.
import type { Config } from './config/schema.ts';
import type { NewEpisode } from './stores/episodic.ts';

export type LearningMode = Config['automatic_learning']['mode'];

export interface Observation {
  tool: string;
  project_id: string;
  args: Record<string, unknown>;
  /** Message of the failure, if it failed. */
  error?: string;
  /** What a success taught, if the tool thinks it is worth remembering. */
  lesson?: string | undefined;
}

/** Arguments that may be long or private are never copied into an episode. */
const LEFT_OUT = ['project_id', 'content', 'fact_value', 'metadata'];

/** Failures that are remembered until they recover; the oldest is forgotten beyond this. */
const MAX_OPEN_FAILURES = 500;

const CONFIDENCE = { failure: 0.6, recovery: 0.7, success: 0.4 };

/**
 * Returns the observer of every tool call. moderate: the first of equal failures in a row, and the
 * success that follows a failure. aggressive: these, and each success that the tool gives a lesson for.
 */
export function createLearning(mode: LearningMode, addEpisode: (episode: NewEpisode) => unknown) {
  const openFailures = new Map<string, string>();
  return (call: Observation): void => {
    const key = JSON.stringify([call.project_id, call.tool]);
    const earlier = openFailures.get(key);
    if (call.error !== undefined) {
      if (call.error === earlier) return;
      rememberFailure(openFailures, key, call.error);
      addEpisode(
        episode('failure', call, call.error, `${call.tool} fails when called like this: ${call.error}`),
      );
    } else if (earlier !== undefined) {
      openFailures.delete(key);
      addEpisode(
        episode('recovery', call, 'succeeded', `${call.tool} failed with "${earlier}"; this call works.`),
      );
    } else if (mode === 'aggressive' && call.lesson !== undefined) {
      addEpisode(episode('success', call, 'succeeded', call.lesson));
    }
  };
}

function rememberFailure(failures: Map<string, string>, key: string, error: string): void {
  failures.delete(key);
  failures.set(key, error);
  const oldest = failures.keys().next().value;
  if (failures.size > MAX_OPEN_FAILURES && oldest !== undefined) failures.delete(oldest);
}

function episode(
  kind: keyof typeof CONFIDENCE,
  call: Observation,
  outcome: string,
  lesson: string,
): NewEpisode {
  return {
    project_id: call.project_id,
    situation: `automatic: ${kind} of ${call.tool}`,
    action: `${call.tool} ${describeArguments(call.args)}`,
    outcome,
    lesson,
    lesson_type: `automatic_${kind}`,
    confidence: CONFIDENCE[kind],
  };
}

function describeArguments(args: Record<string, unknown>): string {
  const shown = Object.entries(args).filter(([name]) => !LEFT_OUT.includes(name));
  return JSON.stringify(Object.fromEntries(shown)).slice(0, 500);
}
