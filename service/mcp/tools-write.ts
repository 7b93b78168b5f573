// The three tools that add to memory: documents, facts and episodes. Each is acknowledged only after its
// transaction is on disk.

import * as z from 'zod';
import { defineTool, fraction, projectId, type ToolContext } from './tool.ts';

const ingest = z.object({
  project_id: projectId,
  file_path: z.string().min(1).optional().describe('The file_path that POST /v1/upload returned.'),
  content: z.string().optional().describe('The text itself, instead of file_path; needs filename.'),
  filename: z.string().trim().min(1).max(300).optional().describe('Name under which the document is listed.'),
  source_type: z
    .string()
    .trim()
    .min(1)
    .max(60)
    .default('file')
    .describe('Kind of source, such as "file" or "url".'),
  metadata: z.record(z.string(), z.unknown()).optional().describe('Anything to keep with the document.'),
});

const memIngest = defineTool({
  name: 'sy.mem.ingest',
  description:
    'Stores a document for full-text recall: give content and filename, or the file_path of an upload.',
  readOnly: false,
  input: ingest,
  run: (args, context) => {
    const { project_id, source_type, metadata = {}, file_path } = args;
    const { content, filename } = documentText(args, context);
    if (content.trim() === '') throw new Error(`${filename} is empty; there is nothing to ingest`);
    const document = { project_id, source_type, filename, content, metadata };
    const result = { project_id, filename, ...context.stores.semantic.addDocument(document) };
    // Only now that its text is on disk; a file left behind by a crash here expires.
    if (file_path !== undefined) context.uploads.remove(file_path);
    return result;
  },
  lesson: (_, { filename, chunks, already_known }) =>
    already_known ? undefined : `"${filename}" is in the semantic memory (${chunks} chunks).`,
});

function documentText(args: z.output<typeof ingest>, { uploads }: ToolContext) {
  const { file_path, content, filename } = args;
  if (file_path !== undefined && content !== undefined)
    throw new Error('Give file_path or content, not both');
  if (file_path !== undefined) {
    const upload = uploads.read(file_path);
    return { content: upload.content, filename: filename ?? upload.filename };
  }
  if (content === undefined)
    throw new Error('Give file_path (from POST /v1/upload), or content and filename');
  if (filename === undefined) throw new Error('filename is missing: content needs a name to be listed under');
  return { content, filename };
}

const factAdd = defineTool({
  name: 'sy.mem.fact.add',
  description:
    'Records a fact of a project under a key. A key that exists is updated; the audit log keeps both values.',
  readOnly: false,
  input: z.object({
    project_id: projectId,
    fact_key: z.string().trim().min(1).max(300).describe('Name of the fact, such as "database.engine".'),
    fact_value: z
      .unknown()
      .refine((value) => value !== undefined, 'expected any JSON value')
      .describe('Any JSON value.'),
    confidence: fraction.default(0.9).describe('How certain the fact is, 0 to 1.'),
    category: z
      .string()
      .trim()
      .min(1)
      .max(100)
      .optional()
      .describe('Group of facts; kept on update if left out.'),
  }),
  run: ({ project_id, fact_key, fact_value, confidence, category }, { stores }) => {
    const fact = {
      scope: project_id,
      key: fact_key,
      value: fact_value,
      confidence,
      category,
      source: 'agent',
    };
    const { id, updated } = stores.memory.addFact(fact);
    return { fact_id: id, project_id, fact_key, updated };
  },
  lesson: ({ fact_key }, { updated }) => `The fact "${fact_key}" was ${updated ? 'updated' : 'recorded'}.`,
});

const epAdd = defineTool({
  name: 'sy.mem.ep.add',
  description: 'Records an episode: what happened in a project and what it taught.',
  readOnly: false,
  input: z.object({
    project_id: projectId,
    title: z.string().trim().min(1).max(500).describe('The situation in one line.'),
    content: z.string().trim().min(1).describe('What was done, how it ended, and the lesson.'),
    lesson_type: z
      .string()
      .trim()
      .min(1)
      .max(60)
      .default('general')
      .describe('Such as "success" or "pattern".'),
    quality: fraction.default(0.8).describe('How useful the lesson is, 0 to 1.'),
  }),
  run: ({ project_id, title, content, lesson_type, quality }, { stores }) => {
    const texts = { situation: title, action: '', outcome: '', lesson: content };
    const { id } = stores.episodic.addEpisode({ project_id, ...texts, lesson_type, confidence: quality });
    return { episode_id: id, project_id, title };
  },
});

export const writingTools = [memIngest, factAdd, epAdd];
