// The second half of configs/release.toml: what runs on this host, which data it keeps, how that is backed up.
import { z } from '#zod';

export const environment = z.strictObject({
  service: z.string().min(1).describe('Service in the compose file'),
  port: z
    .int()
    .min(1)
    .max(65535)
    .describe('Port on the host; PREFIX_DEV_PORT / PREFIX_PROD_PORT in .env beat it'),
  health: z
    .string()
    .startsWith('/')
    .default('/health')
    .describe('Path that answers 200 when the service is well'),
  config: z
    .string()
    .min(1)
    .optional()
    .describe(
      "Service configuration that is checked before the environment starts; only for Synapse's own form",
    ),
  start_timeout: z.int().positive().default(60).describe('Seconds until the service must be healthy'),
});

export const data = z
  .strictObject({
    directory: z
      .string()
      .min(1)
      .describe('Data directory shared by both environments; PREFIX_DATA_DIR in .env beats it'),
    format_label: z
      .string()
      .min(1)
      .optional()
      .describe('Image label that holds the number of the data format'),
    format_file: z
      .string()
      .min(1)
      .default('format.json')
      .describe(
        'JSON file in the data directory that holds the number of its format; none there: not compared',
      ),
    format_key: z.string().min(1).default('dataFormat').describe('Its key in that file'),
  })
  .describe('Where the service keeps what must not be lost');

const liveRequest = z.strictObject({
  method: z.enum(['GET', 'POST', 'PUT']).default('POST'),
  path: z.string().startsWith('/').describe('Path on the environment; %nonce% stands for the random word'),
  headers: z.record(z.string(), z.string()).default({}),
  body: z.string().default('').describe('Sent as it is; %nonce% stands for the random word'),
});

export const live = z
  .strictObject({
    token: z
      .string()
      .min(1)
      .optional()
      .describe('Variable in .env, without prefix, whose value is sent as bearer token'),
    write: liveRequest.describe('Sent to dev: stores the random word'),
    read: liveRequest.describe('Sent to prod: its answer must contain that word'),
  })
  .describe(
    'What `doctor --live` does with the running environments: written through dev, read through prod',
  );

export { backup } from './backup/config-schema.ts';
