// What a step of the migration is, and what it is given. Every step can be repeated and undone at any point
// of its work: a run may have died anywhere in it.
import type { LegacyDescription } from '../migrate-schema.ts';
import type { Project } from '../project.ts';
import type { Recorder, StepEvidence } from './record.ts';
import type { StepName } from './step-names.ts';

export interface StepContext {
  /** Read anew for each step: steps write .env. */
  project: Project;
  description: LegacyDescription;
  recorder: Recorder;
}

export interface Step {
  name: StepName;
  /** Does it; returns what shows that it is done. */
  apply: (context: StepContext) => Promise<StepEvidence>;
  /** Takes back whatever of it was done. */
  undo: (context: StepContext) => Promise<void>;
}

/** What a step has written down so far. */
export function evidenceOfStep<T extends StepEvidence>(
  { recorder }: StepContext,
  step: StepName,
): Partial<T> {
  return (recorder.record.steps[step]?.evidence ?? {}) as Partial<T>;
}
