// The four tools that only read: what projects and sources there are, and what is known. Results of
// several memories always come in their order of authority: symbolic, episodic, semantic.

import * as z from 'zod';
import type { Stores } from '../stores/stores.ts';
import { defineTool, memoryType, projectId, resultLimit } from './tool.ts';

type Memory = z.output<typeof memoryType>;

const projList = defineTool({
  name: 'sy.proj.list',
  description: 'Lists the projects that have any memory, with how much of each kind.',
  readOnly: true,
  input: z.object({
    scope_type: z
      .string()
      .min(1)
      .optional()
      .describe('Only ids of this type: "user" for user:anna; "project" for ids without a prefix.'),
  }),
  run: ({ scope_type }, { stores }) => {
    const projects = listProjects(stores);
    return {
      projects: projects.filter((project) => scope_type === undefined || project.scope_type === scope_type),
    };
  },
});

function listProjects(stores: Stores) {
  const projects = new Map<
    string,
    { facts: number; episodes: number; documents: number; last_change: string }
  >();
  for (const [kind, store] of [
    ['facts', stores.memory],
    ['episodes', stores.episodic],
    ['documents', stores.semantic],
  ] as const) {
    for (const { project_id, count, last } of store.countByProject()) {
      const project = projects.get(project_id) ?? { facts: 0, episodes: 0, documents: 0, last_change: '' };
      project[kind] = count;
      if (last > project.last_change) project.last_change = last;
      projects.set(project_id, project);
    }
  }
  return [...projects]
    .map(([project_id, counts]) => ({ project_id, scope_type: scopeType(project_id), ...counts }))
    .sort((a, b) => (a.project_id < b.project_id ? -1 : 1));
}

/** `user:anna` → `user`; without a prefix, `project`. */
function scopeType(id: string): string {
  const prefix = id.indexOf(':');
  return prefix > 0 ? id.slice(0, prefix) : 'project';
}

const srcList = defineTool({
  name: 'sy.src.list',
  description: 'Lists the documents that were ingested into a project, newest first.',
  readOnly: true,
  input: z.object({
    project_id: projectId,
    source_type: z.string().min(1).optional().describe('Only sources of this type, such as "file".'),
  }),
  run: ({ project_id, source_type }, { stores }) => ({
    project_id,
    sources: stores.semantic.listSources(project_id, source_type),
  }),
});

const ctxGet = defineTool({
  name: 'sy.ctx.get',
  description:
    'What is known about a project, to begin work with: facts, lessons and document passages, with a query the ' +
    'best matching ones, without one the most certain and newest. Where they disagree, the earlier type is right.',
  readOnly: true,
  input: z.object({
    project_id: projectId,
    context_type: memoryType,
    query: z.string().trim().min(1).max(2000).optional().describe('What the context is needed for.'),
    max_results: resultLimit,
  }),
  run: ({ project_id, context_type, query, max_results }, { stores }) => ({
    project_id,
    context_type,
    ...recall(stores, project_id, context_type, query, max_results),
  }),
});

const memSearch = defineTool({
  name: 'sy.mem.search',
  description: 'Searches the memory of a project. Where results disagree, the earlier type is right.',
  readOnly: true,
  input: z.object({
    project_id: projectId,
    query: z.string().trim().min(1).max(2000).describe('Words to look for.'),
    memory_type: memoryType,
    top_k: resultLimit,
  }),
  run: ({ project_id, query, memory_type, top_k }, { stores }) => {
    const found = recall(stores, project_id, memory_type, query, top_k);
    return { project_id, query, memory_type, ...found };
  },
  lesson: ({ query }, { total }) =>
    total === 0 ? `Nothing is known yet about "${query.slice(0, 200)}".` : undefined,
});

/** Results in order of authority, each saying its type. */
function recall(stores: Stores, project: string, type: Memory, query: string | undefined, limit: number) {
  const results: object[] = [];
  const add = (memory_type: Exclude<Memory, 'all'>, find: Stores['memory']['findFacts'] | FindRows) => {
    if (type !== 'all' && type !== memory_type) return;
    for (const row of find(project, query, limit)) results.push({ memory_type, ...row });
  };
  add('symbolic', stores.memory.findFacts);
  add('episodic', stores.episodic.findEpisodes);
  add('semantic', stores.semantic.findChunks);
  return { total: results.length, results };
}

type FindRows = (project: string, query: string | undefined, limit: number) => object[];

export const readingTools = [projList, srcList, ctxGet, memSearch];
