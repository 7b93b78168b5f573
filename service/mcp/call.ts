// What surrounds every tool call: finding the tool, checking its input, timing, metrics, learning, log.
// A failure of the bookkeeping is logged and never fails the call itself.
import { type CallToolResult, ErrorCode, McpError } from '@modelcontextprotocol/sdk/types.js';
import * as z from 'zod';
import type { Observation } from '../learning.ts';
import type { Log } from '../log.ts';
import type { ToolCall } from '../stores/metrics.ts';
import { projectId, type Tool, type ToolContext } from './tool.ts';

export interface CallContext extends ToolContext {
  tools: readonly Tool[];
  log: Log;
  /** Undefined when metrics are switched off. */
  recordCall?: ((call: ToolCall) => void) | undefined;
  learn: (observation: Observation) => void;
}

interface Finished {
  outcome: ToolCall['outcome'];
  result: object;
  error?: string;
  lesson?: string | undefined;
}

/** Runs a tool. A failing or refused call is a result with `isError`, so that the agent can read why. */
export function callTool(name: string, args: Record<string, unknown>, context: CallContext): CallToolResult {
  const tool = context.tools.find((candidate) => candidate.name === name);
  if (!tool) {
    const known = context.tools.map((candidate) => candidate.name).join(', ');
    throw new McpError(ErrorCode.InvalidParams, `Unknown tool ${name}; the tools are ${known}`);
  }
  const started = performance.now();
  const finished = attempt(tool, args, context);
  keepBooks(tool, args, finished, performance.now() - started, context);
  if (finished.error !== undefined)
    return { content: [{ type: 'text', text: finished.error }], isError: true };
  return { content: [{ type: 'text', text: JSON.stringify(finished.result) }] };
}

function attempt(tool: Tool, args: Record<string, unknown>, context: CallContext): Finished {
  const input = tool.input.safeParse(args);
  if (!input.success) {
    return {
      outcome: 'refused',
      result: {},
      error: `Invalid input for ${tool.name}: ${z.prettifyError(input.error)}`,
    };
  }
  try {
    const result = tool.run(input.data as never, context);
    return { outcome: 'ok', result, lesson: tool.lesson?.(input.data as never, result as never) };
  } catch (error) {
    return { outcome: 'failed', result: {}, error: `${tool.name} failed: ${(error as Error).message}` };
  }
}

function keepBooks(
  tool: Tool,
  args: Record<string, unknown>,
  { outcome, error, lesson }: Finished,
  duration: number,
  { log, recordCall, learn }: CallContext,
): void {
  const project_id = projectId.safeParse(args.project_id).data ?? null;
  const duration_ms = Math.round(duration * 1000) / 1000;
  const call: ToolCall = { tool: tool.name, project_id, outcome, duration_ms };
  log[outcome === 'ok' ? 'debug' : 'warn']('tool call', { ...call, ...(error ? { error } : {}) });
  try {
    recordCall?.(call);
    if (project_id === null) return;
    learn({ tool: tool.name, project_id, args, lesson, ...(error === undefined ? {} : { error }) });
  } catch (failure) {
    log.error('tool call not recorded', { ...call, error: String(failure) });
  }
}
