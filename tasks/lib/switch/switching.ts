// One switch on its way: what was decided, and what its steps share.
import type { Phases } from '../phases.ts';
import type { Project } from '../project.ts';
import type { Scene } from './environments.ts';
import type { SwitchStep, SwitchTarget } from './plan.ts';
import type { SwitchJournal, SwitchRecord } from './record.ts';
import type { TargetImages } from './target.ts';

export interface SwitchOptions {
  scene: Scene;
  target: SwitchTarget;
  images: TargetImages;
  steps: readonly SwitchStep[];
  /** Seconds an environment may take to become healthy; undefined: as release.toml says. */
  waitSeconds: number | undefined;
}

export interface SwitchReport {
  phases: Phases;
  /** Milliseconds in which nobody answered. */
  gaps: Record<string, number>;
}

export interface Switching extends SwitchOptions, SwitchReport {
  project: Project;
  journal: SwitchJournal;
  record: SwitchRecord;
}

/** A switch that was planned and checked on whatever runs the services: what the task shows, asks and does. */
export interface PlannedSwitch {
  /** One line each; none if there is nothing to do. */
  steps: string[];
  warnings: string[];
  run: (waitSeconds: number | undefined) => Promise<SwitchReport>;
  /** What runs, in words and as data; after `run`: what runs then. */
  observe: () => Promise<{ text: string; data: Record<string, unknown> }>;
}
