// Automatic learning: which tool calls become episodes. The mode (aggressive, moderate, or switched off) is shown
// in /health.
import type { Config } from './config/schema.ts';
import type { NewEpisode } from './stores/episodic.ts';

/** A mistake in the call itself: nothing is learnt from it. */
export class InvalidCall extends Error {}

export interface Observation {
  tool: string;
  project_id: string;
  /** What the call was about, such as the name of a document. */
  subject: string | undefined;
  /** Message of the failure, if it failed. */
  error?: string | undefined;
  /** What a success changed, if it is worth knowing later. */
  lesson?: string | undefined;
}

/** Failures that are remembered until they recover; the oldest is forgotten beyond this. */
const MAX_OPEN_FAILURES = 500;

const CONFIDENCE = { failure: 0.6, recovery: 0.7, change: 0.4 };

/**
 * Returns the observer of every tool call. moderate: the first of equal failures about one subject, and the success
 * that follows it. aggressive: these, and changes of what was known before. Invalid calls are not observed.
 */
export function createLearning(
  { enabled, mode }: Config['automatic_learning'],
  addEpisode: (episode: NewEpisode) => unknown,
) {
  const openFailures = new Map<string, string>();
  return ({ tool, project_id, subject, error, lesson }: Observation): void => {
    if (!enabled) return;
    const shortSubject = subject?.slice(0, 300);
    const about = subject === undefined ? tool : `${tool} of "${shortSubject}"`;
    const record = (kind: keyof typeof CONFIDENCE, outcome: string, lesson: string) =>
      addEpisode({
        project_id,
        situation: `automatic: ${kind} of ${tool}`,
        action: [tool, shortSubject].filter(Boolean).join(' '),
        outcome,
        lesson,
        lesson_type: `automatic_${kind}`,
        confidence: CONFIDENCE[kind],
      });
    const key = JSON.stringify([project_id, tool, subject]);
    const earlier = openFailures.get(key);
    if (error === undefined && earlier !== undefined) {
      openFailures.delete(key);
      record('recovery', 'succeeded', `${about} works again; before: ${earlier}`);
    } else if (error === undefined) {
      if (mode === 'aggressive' && lesson !== undefined) record('change', 'succeeded', lesson);
    } else if (error !== earlier) {
      openFailures.set(key, error);
      if (openFailures.size > MAX_OPEN_FAILURES) openFailures.delete(openFailures.keys().next().value!);
      record('failure', error, `${about}: ${error}`);
    }
  };
}
