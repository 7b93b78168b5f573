// The [migrate] part of configs/release.toml: how the older setup looks that `migrate` comes from. Everything
// that is known about it is here as data, so that the task itself knows nothing of any particular service.
import type { output } from 'zod';
import { z } from '#zod';

const names = z.array(z.string().min(1));

const setting = z
  .strictObject({
    to: z.string().min(1).optional().describe('Key path of the new service configuration'),
    in: z.enum(['base', 'dev', 'prod']).default('base').describe('Configuration file that it goes to'),
    variable: z
      .string()
      .regex(/^[A-Z][A-Z0-9_]*$/)
      .optional()
      .describe(
        'Variable of .env, without prefix, that it goes to instead; secrets go there and nowhere else',
      ),
    values: z.record(z.string(), z.string()).default({}).describe('Old value → new value'),
    scale: z.number().optional().describe('Factor from the old unit to the new one'),
    drop: z.string().min(1).optional().describe('Why it is not carried over'),
  })
  .refine(({ to, variable, drop }) => (to !== undefined || variable !== undefined) !== (drop !== undefined), {
    message: 'give either `to` or `variable`, or else `drop`',
  });

const readable = z
  .strictObject({
    database: z.string().min(1).describe('Database below the data directory that the sample is taken from'),
    query: z.string().min(1).describe('SELECT of a few rows; each is asked for through both environments'),
    path: z.string().startsWith('/').describe('Path on the environment'),
    headers: z.record(z.string(), z.string()).default({}),
    body: z
      .string()
      .min(1)
      .describe('Sent by POST; %column% stands for a column of the row, as in a JSON string'),
    expect: z.string().min(1).describe('Column whose value the answer must contain'),
    token: z
      .string()
      .min(1)
      .optional()
      .describe('Variable in .env, without prefix, that holds a bearer token'),
  })
  .describe('How to see that old data is readable through a running environment');

export const migrate = z
  .strictObject({
    service: z.string().min(1).describe('Service in the old compose file'),
    image: z.string().min(1).describe('Its image, without tag'),
    compose_files: names.min(1).describe('What the old compose file is called'),
    places: names.default(['.', '..']).describe('Folders to look for it in, relative to the project'),
    health: z
      .string()
      .startsWith('/')
      .default('/health')
      .describe('Path that the old service answers 200 on'),
    port: z.int().min(1).max(65535).describe('Port inside the old container'),
    data_targets: names.min(1).describe('Where its data directory is mounted in the container'),
    data_directories: names.default([]).describe('Where its data directory usually is on the host'),
    models_targets: names.default([]).describe('Where its model files are mounted in the container'),
    models_volume_suffix: z.string().min(1).describe('What the name of its models volume ends with'),
    models_volume: z.string().min(1).describe('Key of the models volume in the new compose file'),
    models_variable: z
      .string()
      .min(1)
      .optional()
      .describe('Variable of .env, without prefix, that names the new volume; none: the files are copied'),
    config_files: names.default([]).describe('Its settings (JSON), relative to its compose file'),
    variable_prefix: z.string().min(1).describe('Prefix of its environment variables'),
    settings: z
      .record(z.string(), setting)
      .default({})
      .describe(
        'Old key (or old variable in lower case, without prefix; * at its end: all that begin so) → what becomes of it',
      ),
    pruned: names
      .default([])
      .describe('Databases below the data directory of which the new service removes what is old'),
    readable: readable.optional(),
    grace_days: z
      .number()
      .min(0)
      .default(14)
      .describe('Days until `migrate --finish` removes the old pieces'),
  })
  .describe('The older, single-service setup that `migrate` comes from');

export type LegacyDescription = output<typeof migrate>;
export type SettingRule = output<typeof setting>;
