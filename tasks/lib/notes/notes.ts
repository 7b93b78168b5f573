// One release's entry in release-notes.md, in the form of Keep a Changelog. Text in, text out; the file around
// the entry is changelog.ts, and what to say is changes.ts.
import type { Changes } from './changes.ts';
import type { Change, Section } from './conventional.ts';
import { codeSpan, escapeBold, escapeLine } from './markdown.ts';

export interface EntryOptions {
  /** Git tag, e.g. `v1.2.0`; becomes the heading. */
  tag: string;
  /** `YYYY-MM-DD`. */
  date: string;
  changes: Pick<Changes, 'changes'>;
  /** Image reference, e.g. `synapse:v1.2.0` or `registry.example/synapse:v1.2.0`. */
  image: string;
  /** Commands to copy, e.g. `npm run switch -- prod --version v1.2.0`. */
  upgrade: string;
  rollback?: string | undefined;
  /** Left out for a first release; then there is nothing to roll back to either. */
  previousTag?: string | undefined;
}

const SECTIONS: readonly (readonly [Section, string])[] = [
  ['breaking', 'Breaking changes'],
  ['features', 'Features'],
  ['fixes', 'Fixes'],
  ['performance', 'Performance'],
  ['other', 'Other'],
];
const HASH_LENGTH = 7;

/** The entry as Markdown with `\n` line ends, the last one included. User text is escaped. */
export function renderEntry(options: EntryOptions): string {
  const { tag, date, changes } = options;
  const parts = [`## [${tag}] - ${date}`, usage(options)];
  const lines = new Map<Section, string[]>(SECTIONS.map(([section]) => [section, []]));
  for (const change of changes.changes) lines.get(change.section)!.push(renderChange(change));
  for (const [section, title] of SECTIONS) {
    const list = lines.get(section)!;
    if (list.length > 0) parts.push(`### ${title}`, list.join('\n'));
  }
  if (changes.changes.length === 0) parts.push('No notable changes.');
  return `${parts.join('\n\n')}\n`;
}

function usage({ image, upgrade, rollback, previousTag }: EntryOptions): string {
  const lines = [`- Image: ${codeSpan(image)}`, `- Upgrade: ${codeSpan(upgrade)}`];
  if (rollback && previousTag) lines.push(`- Roll back to ${previousTag}: ${codeSpan(rollback)}`);
  return lines.join('\n');
}

/** One list item, e.g. `- **api:** add login (#12, abc1234), with Jane Doe`. */
export function renderChange(change: Change): string {
  const subject = change.subject.trim() || '(no message)';
  const words = change.scope
    ? `**${escapeBold(change.scope)}:** ${escapeLine(subject)}`
    : escapeLine(subject);
  const sources = [...change.references, change.hash.slice(0, HASH_LENGTH)].join(', ');
  const names = change.coAuthors.map(escapeLine).join(', ');
  const item = `- ${words} (${sources})${names ? `, with ${names}` : ''}`;
  return change.note && change.note !== change.subject ? `${item}\n\n${renderNote(change.note)}` : item;
}

/** The text of a BREAKING CHANGE, as paragraphs that belong to the list item; its own lists stay lists. */
function renderNote(note: string): string {
  const lines = note.split(/\r?\n/).map((line) => {
    const marker = /^\s*[-*] +(?=\S)/.test(line) ? '- ' : '';
    const text = escapeLine(marker ? line.replace(/^\s*[-*] +/, '') : line);
    return text === '' ? '' : `  ${marker}${text}`;
  });
  return lines.join('\n').replace(/\n{3,}/g, '\n\n');
}
