// What a tool is: a name, a checked input, a run over the stores, and what a success teaches. Transport,
// metrics and learning stay outside (call.ts), so a tool is only its own rule.

import * as z from 'zod';
import type { Stores } from '../stores/stores.ts';
import type { Uploads } from '../uploads.ts';

export interface ToolContext {
  stores: Stores;
  uploads: Uploads;
}

export interface Tool {
  name: string;
  description: string;
  input: z.ZodObject;
  /** Whether it only reads; clients may then call it without asking. */
  readOnly: boolean;
  run(args: never, context: ToolContext): object;
  /** One sentence worth remembering about this success, for automatic learning. */
  lesson?(args: never, result: never): string | undefined;
}

/** Ties the types of input, run and lesson together, then forgets them, so that tools fit in one list. */
export function defineTool<Input extends z.ZodObject, Result extends object>(tool: {
  name: string;
  description: string;
  input: Input;
  readOnly: boolean;
  run(args: z.output<Input>, context: ToolContext): Result;
  lesson?(args: z.output<Input>, result: Result): string | undefined;
}): Tool {
  return tool;
}

export const projectId = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .regex(/^\P{Cc}*$/u, 'expected no control characters')
  .describe('Id of the project that the memory belongs to.');

export const memoryType = z
  .enum(['all', 'symbolic', 'episodic', 'semantic'])
  .default('all')
  .describe(
    'symbolic: facts; episodic: lessons; semantic: documents; all: these in that order of authority.',
  );

export const resultLimit = z.int().min(1).max(100).default(10).describe('Most results of each type.');

export const fraction = z.number().min(0).max(1);
