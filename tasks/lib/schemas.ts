// The JSON Schemas in configs/schema/, made from the zod schemas in the code: by them editors complete and check our
// configuration files, and scripts know what `--json` prints.
import { join } from 'node:path';
import { z } from 'zod';
import { ConfigSchema } from '../../service/config/schema.ts';
import { makeDirectory, readIfPresent, writeFileAtomic } from './files.ts';
import { projectSchema } from './project-schema.ts';
import { resultSchemas } from './results.ts';

const FOLDER = 'configs/schema';

/** Path below the project → text. */
function configSchemas(): Record<string, string> {
  const options = { io: 'input', target: 'draft-7' } as const;
  const service = z.toJSONSchema(ConfigSchema, options);
  return {
    [`${FOLDER}/synapse.json`]: jsonText({
      ...service,
      title: 'Synapse service configuration (base file and environment files)',
      properties: { $schema: { type: 'string' }, ...service.properties },
    }),
    [`${FOLDER}/release.json`]: jsonText({
      ...z.toJSONSchema(projectSchema, options),
      title: 'configs/release.toml',
    }),
    ...Object.fromEntries(Object.entries(resultSchemas).map(resultSchema)),
  };
}

function resultSchema([task, schema]: [string, z.ZodType]): [path: string, text: string] {
  const { $schema, ...rest } = z.toJSONSchema(schema, { target: 'draft-7' });
  return [
    `${FOLDER}/result-${task}.json`,
    jsonText({ $schema, title: `What ${task} --json prints`, ...rest }),
  ];
}

function jsonText(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** The schema files that are not what the code says. */
export async function outdatedSchemas(root: string): Promise<Record<string, string>> {
  const wanted = Object.entries(configSchemas());
  const present = await Promise.all(wanted.map(([path]) => readIfPresent(join(root, path))));
  return Object.fromEntries(wanted.filter(([, text], index) => text !== present[index]));
}

export async function writeSchemas(root: string, schemas: Record<string, string>): Promise<void> {
  await makeDirectory(join(root, FOLDER));
  for (const [path, text] of Object.entries(schemas)) await writeFileAtomic(join(root, path), text);
}
