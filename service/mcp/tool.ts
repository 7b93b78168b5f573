// What a tool is, and what surrounds every call: checking its input, timing, metrics, learning, log.
// A failure of the recording is logged and never fails the call itself.
import { type CallToolResult, ErrorCode, McpError } from '@modelcontextprotocol/sdk/types.js';
import * as z from 'zod';
import type { Context } from '../context.ts';
import { InvalidCall } from '../learning.ts';
import type { ToolCall } from '../stores/metrics.ts';

interface Rule<Args, Result> {
  name: string;
  description: string;
  /** What the tool does to the memory; clients may read without asking. */
  effect: 'reads' | 'adds' | 'deletes';
  run(args: Args, context: Context): Result | Promise<Result>;
  /** What the call is about, to recognize a success as the recovery of a failure. */
  subject?(args: Args): string | undefined;
  /** One sentence worth knowing later, for automatic learning. */
  lesson?(args: Args, result: Result): string | undefined;
}

export interface Tool extends Rule<never, never> {
  input: z.ZodObject;
}

/** Checks the types of input, run and lesson against each other; tools of all types fit in one list. */
export function defineTool<Input extends z.ZodObject, Result extends object>(
  tool: Rule<z.output<Input>, Result> & { input: Input },
): Tool {
  return tool as unknown as Tool;
}

interface Finished {
  outcome: ToolCall['outcome'];
  result?: object;
  error?: string;
  lesson?: string | undefined;
}

/** Runs a tool. A failed or refused call is a result with `isError`, so that the agent can read why. */
export async function callTool(
  tools: readonly Tool[],
  name: string,
  args: Record<string, unknown>,
  context: Context,
): Promise<CallToolResult> {
  const tool = tools.find((candidate) => candidate.name === name);
  if (!tool) {
    const known = tools.map((candidate) => candidate.name).join(', ');
    throw new McpError(ErrorCode.InvalidParams, `Unknown tool ${name}; the tools are ${known}`);
  }
  const started = performance.now();
  const finished = await attempt(tool, args, context);
  record(tool, args, finished, performance.now() - started, context);
  const { result, error } = finished;
  return { content: [{ type: 'text', text: error ?? JSON.stringify(result) }], isError: error !== undefined };
}

async function attempt(tool: Tool, args: Record<string, unknown>, context: Context): Promise<Finished> {
  const input = tool.input.safeParse(args);
  if (!input.success) {
    const error = `Invalid input for ${tool.name}: ${z.prettifyError(input.error)}`;
    return { outcome: 'refused', error };
  }
  try {
    const result = await tool.run(input.data as never, context);
    return { outcome: 'ok', result, lesson: tool.lesson?.(input.data as never, result as never) };
  } catch (error) {
    const outcome = error instanceof InvalidCall ? 'refused' : 'failed';
    return { outcome, error: `${tool.name} failed: ${(error as Error).message}` };
  }
}

function record(
  tool: Tool,
  args: Record<string, unknown>,
  { outcome, error, lesson }: Finished,
  duration: number,
  { config, log, stores, learn }: Context,
): void {
  const given = typeof args.project_id === 'string' ? args.project_id.trim() : '';
  const project_id = isProjectId(given) ? given : null;
  const call: ToolCall = {
    tool: tool.name,
    project_id,
    outcome,
    duration_ms: Math.round(duration * 1000) / 1000,
  };
  log[outcome === 'ok' ? 'debug' : 'warn']('tool call', { ...call, error });
  try {
    if (config.metrics.enabled) stores.metrics.record(call);
    if (project_id === null || outcome === 'refused') return;
    learn({ tool: tool.name, project_id, subject: tool.subject?.(args as never), error, lesson });
  } catch (failure) {
    log.error('tool call not recorded', { ...call, error: String(failure) });
  }
}

/** Checked here and not by a pattern in the listed schema, which some models' providers cannot compile. */
export function isProjectId(id: string): boolean {
  return id.length > 0 && id.length <= 200 && !/\p{Cc}/u.test(id);
}
