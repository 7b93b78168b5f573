// All steps, in the order of step-names.ts.
import type { Step } from './step.ts';
import { STEPS, type StepName } from './step-names.ts';
import { backup } from './steps-backup.ts';
import { data } from './steps-data.ts';
import { compose, models, notes, settings } from './steps-files.ts';
import { start, stop } from './steps-service.ts';
import { images, prepare } from './steps-setup.ts';
import { verify } from './steps-verify.ts';

const BY_NAME: Record<StepName, Step> = {
  prepare,
  images,
  stop,
  data,
  backup,
  compose,
  models,
  settings,
  start,
  verify,
  notes,
};

export const ALL_STEPS: readonly Step[] = STEPS.map((name) => BY_NAME[name]);
