// Which release can read the data that an archive brings back: a newer one reads older formats, an older one
// refuses newer ones.
import { inspectContainers } from '../docker/containers.ts';
import { inspectImage } from '../docker/images.ts';
import { combinedError, TaskError } from '../errors.ts';
import type { Project } from '../project.ts';
import { verifyReleasedImage } from '../release/releases.ts';
import type { Summary } from './program-schema.ts';
import type { Running } from './restore-record.ts';

/** The number of the data format that an image reads; undefined where it does not say. */
async function formatOf(project: Project, imageId: string): Promise<number | undefined> {
  const label = project.data.format_label;
  const value = label ? (await inspectImage(imageId))?.labels[label] : undefined;
  return value === undefined ? undefined : Number(value);
}

/**
 * The release that prod has to run on this data: null where the present one can read it. A newer program reads
 * older formats, never the other way round. @throws TaskError where none of those that ran could start
 */
export async function releaseFor(project: Project, running: readonly Running[], summary: Summary) {
  const { dataFormat, origin } = summary;
  if (dataFormat === null) return null;
  const problems: TaskError[] = [];
  let prodTag: string | null = null;
  for (const [index, container] of (await inspectContainers(running.map(({ id }) => id))).entries()) {
    const format = await formatOf(project, container.imageId);
    if (format === undefined || format >= dataFormat) continue;
    const { environment } = running[index]!;
    const what = `${environment} runs ${container.image}, which reads data format ${format}; the archive has ${dataFormat}`;
    if (environment === 'prod') {
      prodTag = origin.version;
      await verifyReleasedImage(project, origin.version).catch((error: TaskError) => problems.push(error));
    } else {
      const hint = 'build a newer one (npm run build-push), or stop it first: npm run switch -- prod';
      problems.push(new TaskError(what, { code: 'data-format', hint }));
    }
  }
  if (problems.length > 0) throw combinedError('Cannot restore; nothing was changed:', problems);
  return prodTag;
}
