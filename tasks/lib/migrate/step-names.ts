// The steps of a migration in their order. A rollback goes through them backwards.
export const STEPS = [
  'prepare',
  'images',
  'stop',
  'data',
  'backup',
  'compose',
  'models',
  'settings',
  'start',
  'verify',
  'notes',
] as const;

export type StepName = (typeof STEPS)[number];
