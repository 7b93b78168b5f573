// Every key of the service's configuration: its type, its bounds, its default and what it is for.
// Apart from the loader because editors (JSON Schema), the README's table and the loader all read it.

import * as z from 'zod';
import { DEFAULT_ADDRESS } from './address.ts';

export const LOG_LEVELS = ['DEBUG', 'INFO', 'WARN', 'ERROR'] as const;
export const LEARNING_MODES = ['aggressive', 'moderate'] as const;

const MIB = 1024 * 1024;

const server = z
  .strictObject({
    host: z
      .string()
      .min(1)
      .default(DEFAULT_ADDRESS.host)
      .describe('Address to listen on; inside a container keep it.'),
    port: z
      .int()
      .min(1)
      .max(65535)
      .default(DEFAULT_ADDRESS.port)
      .describe('Port to listen on inside the container.'),
    allowed_hosts: z
      .array(z.string().min(1))
      .default([])
      .describe(
        'Host names that clients may use besides localhost, 127.0.0.1 and [::1], such as "pi.local" or ' +
          '"192.168.1.20" (any port) or "pi.local:8002"; protects against DNS rebinding. "*" allows all.',
      ),
    max_body_bytes: z
      .int()
      .min(1024)
      .max(256 * MIB)
      .default(4 * MIB)
      .describe('Largest MCP request in bytes; larger documents go through /v1/upload.'),
  })
  .prefault({})
  .describe('The HTTP server.');

const semantic = z
  .strictObject({
    chunk_size: z.int().min(100).max(20_000).default(1200).describe('Characters in one chunk of a document.'),
    chunk_overlap: z
      .int()
      .min(0)
      .max(10_000)
      .default(200)
      .describe('Characters that a chunk repeats from the one before it; less than chunk_size.'),
  })
  .refine((value) => value.chunk_overlap < value.chunk_size, {
    path: ['chunk_overlap'],
    message: 'expected less than semantic.chunk_size',
  })
  .prefault({})
  .describe('How documents are cut for the semantic index.');

const uploads = z
  .strictObject({
    max_bytes: z
      .int()
      .min(1)
      .max(1024 * MIB)
      .default(20 * MIB)
      .describe('Largest file that /v1/upload accepts, in bytes.'),
    expiry_minutes: z
      .number()
      .positive()
      .max(7 * 24 * 60)
      .default(60)
      .describe('Minutes after which an upload that nobody ingested is deleted.'),
  })
  .prefault({})
  .describe('Files that wait for ingestion.');

const metrics = z
  .strictObject({
    enabled: z.boolean().default(true).describe('Record the duration and outcome of every tool call.'),
    retention_days: z.int().min(1).max(3650).default(30).describe('Days after which records are deleted.'),
  })
  .prefault({})
  .describe('Call statistics in metrics.db.');

export const ConfigSchema = z.strictObject({
  environment: z
    .string()
    .regex(/^[a-z][a-z0-9-]{0,30}$/, 'expected a short lower-case name such as dev or prod')
    .default('dev')
    .describe('Name of the environment, as /health reports it. Also SYNAPSE_ENV.'),
  server,
  log: z
    .strictObject({
      level: z
        .enum(LOG_LEVELS)
        .default('INFO')
        .describe('Least severe level that is logged. Also LOG_LEVEL.'),
    })
    .prefault({})
    .describe('JSON log lines on standard output.'),
  data: z
    .strictObject({
      directory: z.string().min(1).default('/app/data').describe('Directory of all stores and uploads.'),
    })
    .prefault({})
    .describe('Where memory is kept.'),
  sqlite: z
    .strictObject({
      busy_timeout_ms: z
        .int()
        .min(100)
        .max(60_000)
        .default(10_000)
        .describe('Milliseconds to wait while the other environment writes the same database.'),
    })
    .prefault({})
    .describe('The databases, which both environments open at the same time.'),
  automatic_learning: z
    .strictObject({
      mode: z
        .enum(LEARNING_MODES)
        .default('moderate')
        .describe(
          'aggressive: an episode for every tool call worth remembering; moderate: failures, recoveries.',
        ),
    })
    .prefault({})
    .describe('Episodes that the service records by itself.'),
  semantic,
  uploads,
  metrics,
});

export type Config = z.output<typeof ConfigSchema>;

/** Every leaf (`server.port`) and section (`server`) of a schema, by dotted path. */
export function schemaPaths(
  schema: z.ZodType,
  path: string[] = [],
): { leaves: Map<string, z.ZodType>; sections: Set<string> } {
  const leaves = new Map<string, z.ZodType>();
  const sections = new Set<string>();
  const inner = withoutDefault(schema);
  if (!(inner instanceof z.ZodObject)) return { leaves: leaves.set(path.join('.'), schema), sections };
  if (path.length > 0) sections.add(path.join('.'));
  for (const [key, child] of Object.entries(inner.shape)) {
    const below = schemaPaths(child as z.ZodType, [...path, key]);
    for (const [name, leaf] of below.leaves) leaves.set(name, leaf);
    for (const name of below.sections) sections.add(name);
  }
  return { leaves, sections };
}

/** The schema that a `.default()` or `.prefault()` wraps. */
export function withoutDefault(schema: z.ZodType): z.ZodType {
  const wrapped = schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault;
  return wrapped ? withoutDefault(schema.unwrap() as z.ZodType) : schema;
}
