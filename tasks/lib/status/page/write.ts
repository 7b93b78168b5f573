// Writing the page where the user wants it.
import { resolve } from 'node:path';
import { writeFileAtomic } from '../../files.ts';
import type { Project } from '../../project.ts';
import type { StatusFacts } from '../facts.ts';
import { switchTimes } from '../measures.ts';
import type { StatusReport } from '../reported.ts';
import { byDay, byHour, withoutFuture } from '../uptime.ts';
import { statusPage } from './page.ts';

/** `file` is relative to the current directory; a page that is there is replaced atomically. */
export async function writeStatusPage(
  project: Project,
  facts: StatusFacts,
  report: StatusReport,
  file: string,
) {
  const now = +facts.at;
  const series = {
    days: byDay(facts.samples, now),
    hours: byHour(withoutFuture(facts.samples, now), now),
    switches: switchTimes(facts.history),
  };
  await writeFileAtomic(resolve(file), statusPage(project, report, series));
}
