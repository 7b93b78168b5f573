// The tools: what projects and sources there are, what is known, and adding to it or deleting from it. Results of
// several memories always come in their order of authority: symbolic, episodic, semantic. What is added or deleted is
// acknowledged only after its transaction is on disk.
import * as z from 'zod';
import type { Context } from '../context.ts';
import { InvalidCall } from '../learning.ts';
import { memoriesOf, type Stores } from '../stores/stores.ts';
import { uploadName } from '../uploads.ts';
import { defineTool, isProjectId, type Tool } from './tool.ts';

/** Characters of JSON: larger values are documents. */
const MAX_FACT = 65_536;
const MAX_EPISODE = 65_536;
const MAX_METADATA = 16_384;

/** Text that is not empty; its longest length is checked here and not listed, see server.ts. */
function text(max: number) {
  const problem = `expected at most ${max} characters`;
  return z
    .string()
    .trim()
    .min(1)
    .refine((value) => value.length <= max, problem);
}

const project_id = z
  .string()
  .trim()
  .min(1)
  .refine(isProjectId, 'expected at most 200 characters, no control characters')
  .describe('Id of the project that the memory belongs to.');

const memoryType = z
  .enum(['all', 'symbolic', 'episodic', 'semantic'])
  .default('all')
  .describe(
    'symbolic: facts; episodic: lessons; semantic: documents; all: these in that order of authority.',
  );

const resultLimit = z.int().min(1).max(100).default(10).describe('Most results of each type.');

const fraction = z.number().min(0).max(1);

function fits(max: number) {
  return (value: unknown) => (JSON.stringify(value) ?? '').length <= max;
}

const scalars = ['string', 'number', 'boolean', 'null', 'object'].map((type) => ({ type }));

/** Listed as a choice of types, because a value without a type is refused by some models' providers. */
const anyJson = z
  .unknown()
  .refine((value) => value !== undefined, 'expected any JSON value')
  .refine(fits(MAX_FACT), `expected at most ${MAX_FACT} characters of JSON; ingest larger texts as documents`)
  .meta({ anyOf: [...scalars, { type: 'array', items: { anyOf: scalars } }] });

const projList = defineTool({
  name: 'sy.proj.list',
  description: 'Lists the projects that have any memory, with how much of each kind.',
  effect: 'reads',
  input: z.object({
    scope_type: text(60)
      .optional()
      .describe('Only ids of this type: "user" for user and user:anna; "project" for ids without a type.'),
  }),
  run: ({ scope_type }, { stores }) => {
    const projects = listProjects(stores);
    return { projects: projects.filter((project) => !scope_type || project.scope_type === scope_type) };
  },
});

const COUNTED = { symbolic: 'facts', episodic: 'episodes', semantic: 'documents' } as const;

function listProjects(stores: Stores) {
  const projects = new Map<string, Record<'facts' | 'episodes' | 'documents', number> & { last: string }>();
  for (const [type, store] of memoriesOf(stores)) {
    for (const { project_id, count, last } of store.countByProject()) {
      const project = projects.get(project_id) ?? { facts: 0, episodes: 0, documents: 0, last: '' };
      project[COUNTED[type]] = count;
      if (last > project.last) project.last = last;
      projects.set(project_id, project);
    }
  }
  return [...projects]
    .map(([project_id, { last: last_change, ...counts }]) => ({
      project_id,
      scope_type: scopeType(project_id),
      ...counts,
      last_change,
    }))
    .sort((a, b) => (a.project_id < b.project_id ? -1 : 1));
}

/** The Python server's scopes are types by themselves. */
const SCOPES = ['user', 'org', 'session'];

/** `user:anna` and `user` → `user`; without a type, `project`. */
function scopeType(id: string): string {
  const [prefix = ''] = id.split(':');
  return (prefix !== id && prefix !== '') || SCOPES.includes(id) ? prefix : 'project';
}

const srcList = defineTool({
  name: 'sy.src.list',
  description: 'Lists the documents that were ingested into a project, newest first.',
  effect: 'reads',
  input: z.object({
    project_id,
    source_type: text(60).optional().describe('Only sources of this type, such as "file".'),
    limit: z.int().min(1).max(1000).default(100).describe('Most sources of one page.'),
    offset: z
      .int()
      .min(0)
      .max(1_000_000)
      .default(0)
      .describe('Sources to skip: next_offset of the previous page.'),
  }),
  run: ({ project_id, source_type, limit, offset }, { stores }) => {
    const { total, sources } = stores.semantic.listSources(project_id, source_type, limit, offset);
    const next = offset + sources.length;
    return { project_id, total, sources, ...(next < total ? { next_offset: next } : {}) };
  },
});

const ctxGet = defineTool({
  name: 'sy.ctx.get',
  description:
    'What is known about a project, to start work with: facts, lessons and document passages, with a query the ' +
    'best matching ones, without one the most certain and newest. Where they disagree, the earlier type is right.',
  effect: 'reads',
  input: z.object({
    project_id,
    context_type: memoryType,
    query: text(2000).optional().describe('What the context is needed for.'),
    max_results: resultLimit,
  }),
  run: async ({ project_id, context_type, query, max_results }, { stores }) => {
    const found = await recall(stores, project_id, context_type, query, max_results);
    return { project_id, context_type, ...found };
  },
});

const memSearch = defineTool({
  name: 'sy.mem.search',
  description:
    'Searches the memory of a project by words. Where results disagree, the earlier type is right.',
  effect: 'reads',
  input: z.object({
    project_id,
    query: text(2000).describe('Words that the text may contain; give several for the same thing.'),
    memory_type: memoryType,
    top_k: resultLimit,
  }),
  run: async ({ project_id, query, memory_type, top_k }, { stores }) => {
    const found = await recall(stores, project_id, memory_type, query, top_k);
    return { project_id, query, memory_type, ...found };
  },
});

/** Results in order of authority, each with its type. */
async function recall(
  stores: Stores,
  project: string,
  type: z.output<typeof memoryType>,
  query: string | undefined,
  limit: number,
) {
  const results: object[] = [];
  for (const [memory_type, store] of memoriesOf(stores)) {
    if (type !== 'all' && type !== memory_type) continue;
    for (const row of await store.find(project, query, limit)) results.push({ memory_type, ...row });
  }
  return { total: results.length, results };
}

const ingest = z.object({
  project_id,
  file_path: text(4096).optional().describe('The file_path that POST /v1/upload returned.'),
  content: z.string().optional().describe('The text itself, instead of file_path; needs filename.'),
  filename: text(300).optional().describe('Name under which the document is listed.'),
  source_type: text(60).default('file').describe('Kind of source, such as "file" or "url".'),
  metadata: z
    .looseObject({})
    .refine(fits(MAX_METADATA), `expected at most ${MAX_METADATA} characters of JSON`)
    .optional()
    .describe('Anything to keep with the document.'),
});

const memIngest = defineTool({
  name: 'sy.mem.ingest',
  description:
    'Stores a document for full-text recall: give content and filename, or the file_path of an upload. It replaces ' +
    'the document of that filename in the project.',
  effect: 'adds',
  input: ingest,
  run: async (args, context) => {
    const { project_id, source_type, metadata = {}, file_path } = args;
    const { content, filename } = documentText(args, context);
    if (content.trim() === '') throw new InvalidCall(`${filename} is empty`);
    const document = { project_id, source_type, filename, content, metadata };
    const result = { project_id, filename, ...(await context.stores.semantic.addDocument(document)) };
    // Only now, with its text on disk. A file that a crash leaves behind expires.
    if (file_path !== undefined) context.uploads.remove(file_path);
    if (result.replaced > 0) context.tidy();
    return result;
  },
  subject: ({ filename, file_path }) => filename ?? (file_path && uploadName(file_path)),
  lesson: (_, { filename, replaced }) =>
    replaced > 0 ? `The document "${filename}" was replaced by a newer version.` : undefined,
});

function documentText(args: z.output<typeof ingest>, { uploads }: Context) {
  const { file_path, content, filename } = args;
  if (file_path !== undefined && content !== undefined)
    throw new InvalidCall('Give file_path or content, not both');
  if (file_path !== undefined) {
    const upload = uploads.read(file_path);
    return { content: upload.content, filename: filename ?? upload.filename };
  }
  if (content === undefined)
    throw new InvalidCall('Give file_path (from POST /v1/upload), or content and filename');
  if (filename === undefined) throw new InvalidCall('filename is missing: content needs one');
  return { content, filename };
}

const factAdd = defineTool({
  name: 'sy.mem.fact.add',
  description:
    'Records a fact of a project under a key; fact_value is any JSON value. A key that exists is updated; the audit ' +
    'log keeps both values.',
  effect: 'adds',
  input: z.object({
    project_id,
    fact_key: text(300).describe('Name of the fact, such as "database.engine".'),
    fact_value: anyJson,
    confidence: fraction.default(0.9).describe('How certain the fact is, 0 to 1.'),
    category: text(100).optional().describe('Group of facts; kept on update if left out.'),
  }),
  run: ({ project_id, fact_key, fact_value, confidence, category }, { stores }) => {
    const fact = { scope: project_id, key: fact_key, value: fact_value, confidence, category };
    const { id, updated, changed } = stores.memory.addFact({ ...fact, source: 'agent' });
    return { fact_id: id, project_id, fact_key, updated, changed };
  },
  subject: ({ fact_key }) => fact_key,
  lesson: ({ fact_key }, { changed }) =>
    changed ? `The fact "${fact_key}" changed; its earlier value is in the audit log.` : undefined,
});

const epAdd = defineTool({
  name: 'sy.mem.ep.add',
  description: 'Records an episode: what happened in a project and what it taught.',
  effect: 'adds',
  input: z.object({
    project_id,
    title: text(500).describe('The situation in one line.'),
    content: text(MAX_EPISODE).describe('What was done, how it ended, and the lesson.'),
    lesson_type: text(60).default('general').describe('Such as "success" or "pattern".'),
    quality: fraction.default(0.8).describe('How useful the lesson is, 0 to 1.'),
  }),
  run: ({ project_id, title, content, lesson_type, quality }, { stores }) => {
    const texts = { situation: title, action: '', outcome: '', lesson: content };
    const { id } = stores.episodic.addEpisode({ project_id, ...texts, lesson_type, confidence: quality });
    return { episode_id: id, project_id, title };
  },
  subject: ({ title }) => title,
});

const memDelete = defineTool({
  name: 'sy.mem.delete',
  description:
    'Deletes a fact, an episode or a document of a project by its id, or the document of a source by its filename. ' +
    'The audit log keeps what was deleted, of a document everything but its text.',
  effect: 'deletes',
  input: z.object({
    project_id,
    id: text(200).optional().describe('fact_id, episode_id or document_id.'),
    source: text(300).optional().describe('filename of a document, as sy.src.list shows it.'),
  }),
  run: ({ project_id, id, source }, { stores, tidy }) => {
    if ((id === undefined) === (source === undefined)) throw new InvalidCall('Give either id or source');
    const deleted = memoriesOf(stores).flatMap(([memory_type, store]) =>
      store.remove(project_id, { id, source }).map((row) => ({ memory_type, ...row })),
    );
    if (deleted.length === 0)
      throw new InvalidCall(`Nothing in ${project_id} has the ${id ? `id ${id}` : `source ${source}`}`);
    tidy();
    return { project_id, deleted };
  },
  subject: ({ id, source }) => id ?? source,
});

export const tools: readonly Tool[] = [
  projList,
  srcList,
  ctxGet,
  memSearch,
  memIngest,
  factAdd,
  epAdd,
  memDelete,
];
