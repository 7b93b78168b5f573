// The JSON Schemas that editors use to complete and check our configuration files, made from the zod
// schemas that the loaders use: an editor and a task never disagree.
import { join } from 'node:path';
import { z } from 'zod';
import { ConfigSchema } from '../../service/config/schema.ts';
import { makeDirectory, readIfPresent, writeFileAtomic } from './files.ts';
import { projectSchema } from './project-schema.ts';

const FOLDER = 'configs/schema';

/** Path below the project → text. */
async function configSchemas(): Promise<Record<string, string>> {
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
  };
}

function jsonText(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** The schema files that are not what the code says. */
export async function outdatedSchemas(root: string): Promise<Record<string, string>> {
  const wanted = Object.entries(await configSchemas());
  const present = await Promise.all(wanted.map(([path]) => readIfPresent(join(root, path))));
  return Object.fromEntries(wanted.filter(([, text], index) => text !== present[index]));
}

export async function writeSchemas(root: string, schemas: Record<string, string>): Promise<void> {
  await makeDirectory(join(root, FOLDER));
  for (const [path, text] of Object.entries(schemas)) await writeFileAtomic(join(root, path), text);
}
