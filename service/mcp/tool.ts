// What a tool is, and what surrounds every call: checking its input, timing, metrics, learning, log.
// A failure of the bookkeeping is logged and never fails the call itself.
import { type CallToolResult, ErrorCode, McpError } from '@modelcontextprotocol/sdk/types.js';
import * as z from 'zod';
import { type Observation, WrongCall } from '../learning.ts';
import type { Log } from '../log.ts';
import type { ToolCall } from '../stores/metrics.ts';
import type { Stores } from '../stores/stores.ts';
import type { Uploads } from '../uploads.ts';

export interface ToolContext {
  stores: Stores;
  uploads: Uploads;
  /** Deletes in the background what no document needs any more. */
  tidy(): void;
}

export interface CallContext extends ToolContext {
  log: Log;
  /** Undefined when metrics are switched off. */
  recordCall?: ((call: ToolCall) => void) | undefined;
  learn: (observation: Observation) => void;
}

interface Rule<Args, Result> {
  name: string;
  description: string;
  /** What the tool does to the memory; clients may read without asking. */
  effect: 'reads' | 'adds' | 'deletes';
  run(args: Args, context: ToolContext): Result | Promise<Result>;
  /** What the call is about, so that a success can be told to be the recovery of a failure. */
  subject?(args: Args): string | undefined;
  /** One sentence that somebody would want to know later, for automatic learning. */
  lesson?(args: Args, result: Result): string | undefined;
}

export interface Tool extends Rule<never, never> {
  input: z.ZodObject;
}

/** Ties the types of input, run and lesson together, then forgets them, so that tools fit in one list. */
export function defineTool<Input extends z.ZodObject, Result extends object>(
  tool: Rule<z.output<Input>, Result> & { input: Input },
): Tool {
  return tool as unknown as Tool;
}

interface Finished {
  outcome: ToolCall['outcome'];
  result: object;
  error?: string;
  lesson?: string | undefined;
}

/** Runs a tool. A failing or refused call is a result with `isError`, so that the agent can read why. */
export async function callTool(
  tools: readonly Tool[],
  name: string,
  args: Record<string, unknown>,
  context: CallContext,
): Promise<CallToolResult> {
  const tool = tools.find((candidate) => candidate.name === name);
  if (!tool) {
    const known = tools.map((candidate) => candidate.name).join(', ');
    throw new McpError(ErrorCode.InvalidParams, `Unknown tool ${name}; the tools are ${known}`);
  }
  const started = performance.now();
  const finished = await attempt(tool, args, context);
  keepBooks(tool, args, finished, performance.now() - started, context);
  if (finished.error !== undefined)
    return { content: [{ type: 'text', text: finished.error }], isError: true };
  return { content: [{ type: 'text', text: JSON.stringify(finished.result) }] };
}

async function attempt(tool: Tool, args: Record<string, unknown>, context: ToolContext): Promise<Finished> {
  const input = tool.input.safeParse(args);
  if (!input.success) {
    const error = `Invalid input for ${tool.name}: ${z.prettifyError(input.error)}`;
    return { outcome: 'refused', result: {}, error };
  }
  try {
    const result = await tool.run(input.data as never, context);
    return { outcome: 'ok', result, lesson: tool.lesson?.(input.data as never, result as never) };
  } catch (error) {
    const outcome = error instanceof WrongCall ? 'refused' : 'failed';
    return { outcome, result: {}, error: `${tool.name} failed: ${(error as Error).message}` };
  }
}

function keepBooks(
  tool: Tool,
  args: Record<string, unknown>,
  { outcome, error, lesson }: Finished,
  duration: number,
  { log, recordCall, learn }: CallContext,
): void {
  const given = typeof args.project_id === 'string' ? args.project_id.trim() : '';
  const project_id = isProjectId(given) ? given : null;
  const duration_ms = Math.round(duration * 1000) / 1000;
  const call: ToolCall = { tool: tool.name, project_id, outcome, duration_ms };
  log[outcome === 'ok' ? 'debug' : 'warn']('tool call', { ...call, ...(error ? { error } : {}) });
  try {
    recordCall?.(call);
    if (project_id === null || outcome === 'refused') return;
    learn({ tool: tool.name, project_id, subject: tool.subject?.(args as never), error, lesson });
  } catch (failure) {
    log.error('tool call not recorded', { ...call, error: String(failure) });
  }
}

/** Checked here and not by a pattern in the listed schema: some models' providers cannot compile it. */
export function isProjectId(id: string): boolean {
  return id.length > 0 && id.length <= 200 && !/\p{Cc}/u.test(id);
}
