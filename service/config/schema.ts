// Every key of the service's configuration with its type, bounds, default and purpose. The loader reads it, and
// editors do (as JSON Schema).
import * as z from 'zod';
import { DEFAULT_ADDRESS } from './sources.ts';

export const LOG_LEVELS = ['DEBUG', 'INFO', 'WARN', 'ERROR'] as const;
export const LEARNING_MODES = ['aggressive', 'moderate'] as const;

const MIB = 1024 * 1024;

const whole = ([min, max]: [number, number], fallback: number, description: string) =>
  z.int().min(min).max(max).default(fallback).describe(description);
const text = (fallback: string, description: string) =>
  z.string().min(1).default(fallback).describe(description);
const flag = (fallback: boolean, description: string) => z.boolean().default(fallback).describe(description);

/** A section that may be left out. */
const section = <Shape extends z.ZodRawShape>(description: string, shape: Shape) =>
  z
    .strictObject(shape)
    .prefault({} as never)
    .describe(description);

const environment = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}$/, 'expected a short lower-case name such as dev or prod')
  .default('dev')
  .describe('Name of the environment, as /health reports it. Also SYNAPSE_ENV.');

const server = section('The HTTP server.', {
  host: text(DEFAULT_ADDRESS.host, 'Address to listen on; inside a container keep it.'),
  port: whole([1, 65535], DEFAULT_ADDRESS.port, 'Port to listen on inside the container.'),
  allowed_hosts: z
    .array(z.string().min(1))
    .default([])
    .describe(
      'Host names that clients may use besides localhost, 127.0.0.1 and [::1], such as "pi.local" or ' +
        '"192.168.1.20" (any port) or "pi.local:8002"; protects against DNS rebinding. "*" allows all.',
    ),
  max_body_bytes: whole(
    [1024, 256 * MIB],
    4 * MIB,
    'Largest MCP request in bytes; larger documents go through /v1/upload.',
  ),
  request_timeout_seconds: whole([1, 3600], 120, 'Seconds that a client may take to send one request.'),
});

const logLevel = z
  .enum(LOG_LEVELS)
  .default('INFO')
  .describe('Least severe level that is logged. Also LOG_LEVEL.');

const learningMode = z
  .enum(LEARNING_MODES)
  .default('moderate')
  .describe('moderate: failures and recoveries; aggressive: also changes of what was known.');

const busyTimeout = 'Milliseconds to wait while the other environment writes the same database.';
const overlap = 'Characters that a chunk repeats from the one before it; less than chunk_size.';

const semantic = z
  .strictObject({
    chunk_size: whole([100, 20_000], 1200, 'Characters in one chunk of a document.'),
    chunk_overlap: whole([0, 10_000], 200, overlap),
  })
  .refine((value) => value.chunk_overlap < value.chunk_size, {
    path: ['chunk_overlap'],
    message: 'expected less than semantic.chunk_size',
  })
  .prefault({})
  .describe('How documents are cut for the semantic index.');

const expiry = z
  .number()
  .positive()
  .max(7 * 24 * 60)
  .default(60)
  .describe('Minutes after which an upload that nobody ingested is deleted.');

export const ConfigSchema = z.strictObject({
  environment,
  server,
  log: section('JSON log lines on standard output.', { level: logLevel }),
  data: section('Where memory is kept.', {
    directory: text('/app/data', 'Directory of all stores and uploads.'),
  }),
  sqlite: section('The databases, which both environments open at the same time.', {
    busy_timeout_ms: whole([100, 60_000], 10_000, busyTimeout),
  }),
  automatic_learning: section('Episodes that the service records by itself.', {
    enabled: flag(true, 'Record episodes at all.'),
    mode: learningMode,
  }),
  semantic,
  uploads: section('Files that wait for ingestion.', {
    max_bytes: whole([1, 1024 * MIB], 20 * MIB, 'Largest file that /v1/upload accepts, in bytes.'),
    expiry_minutes: expiry,
  }),
  metrics: section('Call statistics in metrics.db.', {
    enabled: flag(true, 'Record the duration and outcome of every tool call.'),
    retention_days: whole([1, 3650], 30, 'Days after which records are deleted.'),
  }),
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
