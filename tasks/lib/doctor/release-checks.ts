// Do the tags, the images and the notes tell the same story? Each way in which somebody's hand can make them differ
// is a line of its own.
import { join } from 'node:path';
import { readIfPresent } from '../files.ts';
import { shortHash } from '../git.ts';
import { findEntry, withdrawnVersions } from '../notes/changelog.ts';
import { outline } from '../notes/headings.ts';
import { imageReference, type Project, variable } from '../project.ts';
import { releasedDigests } from '../release/record.ts';
import type { ReleaseTag } from '../release/release-tags.ts';
import { parseTag } from '../version/version-tags.ts';
import { type Check, type Finding, failed, gather, when } from './check.ts';
import type { Facts } from './facts.ts';

type Images = Awaited<ReturnType<Facts['images']>>;
const REVISION = 'org.opencontainers.image.revision';
const FETCH = 'git fetch --tags';

/** What is wrong with one tag, seen from its image. */
function tagProblems(project: Project, tag: ReleaseTag, images: Images): Finding[] {
  const { name, record, commit } = tag;
  const reference = imageReference(project, name);
  const build = `npm run build-push -- ${name}`;
  if (!record) {
    const remedy = `take it away if it was set by hand: git tag -d ${name}; the real one may be at the remote: ${FETCH} --force`;
    return [failed(`git tag ${name} is not a release: it records no image`, remedy)];
  }
  const image = images.find(({ names }) => names.includes(reference));
  if (!image) {
    return when(name === variable(project, 'PROD_TAG'), () =>
      failed(`image ${reference}, which .env names for prod, is not on this machine`, build),
    );
  }
  if (!releasedDigests(record).includes(image.id)) {
    const what = `it is ${image.id}, git tag ${name} records ${record.digest}`;
    return [
      failed(
        `image ${reference} is not the released one: ${what}`,
        `docker image rm ${reference} && ${build}`,
      ),
    ];
  }
  const built = image.labels[REVISION];
  return when(built && built !== commit, () => {
    const what = `it names commit ${shortHash(commit)}, its image was built from ${shortHash(built!)}`;
    return failed(`git tag ${name} was moved: ${what}`, `git tag -d ${name} && ${FETCH}`);
  });
}

/** Entries of versions that have no tag. */
function orphanEntries(notes: string, prefix: string, tags: readonly ReleaseTag[]): string[] {
  const known = new Set(tags.map(({ version }) => version));
  const withdrawn = withdrawnVersions(notes);
  const versions = outline(notes).headings.flatMap(({ text }) => {
    const word = /^\[?([^\]\s]+)/.exec(text)?.[1] ?? '';
    return parseTag(prefix, word) ?? [];
  });
  return versions.filter((version) => !known.has(version) && !withdrawn.has(version));
}

/** Image names that are versions without a tag. */
function untaggedImages(images: Images, prefix: string, tags: readonly ReleaseTag[]): string[] {
  return images
    .flatMap(({ names }) => names)
    .filter((reference) => {
      const name = reference.slice(reference.lastIndexOf(':') + 1);
      return parseTag(prefix, name) !== undefined && !tags.some((tag) => tag.name === name);
    });
}

/** Where notes and tags miss each other. */
function notesProblems(file: string, notes: string, prefix: string, tags: readonly ReleaseTag[]): Finding[] {
  const missing = tags.filter((tag) => tag.record && !findEntry(notes, tag.name));
  const finish = `fetch the tags: ${FETCH}; or finish an interrupted release: npm run release`;
  return [
    ...missing.map(({ name }) =>
      failed(`${file} has no entry for ${name}`, `see what it was: git show ${name}:${file}`),
    ),
    ...orphanEntries(notes, prefix, tags).map((version) =>
      failed(`${file} has an entry for ${prefix}${version}, git has no such tag`, finish),
    ),
  ];
}

async function releases({ project, releases: tagsOf, images: imagesOf }: Facts): Promise<Finding> {
  const { tag_prefix: prefix, notes: file } = project.release;
  const [tags, images] = await Promise.all([tagsOf(), imagesOf()]);
  const notes = (await readIfPresent(join(project.root, file))) ?? '';
  const prodTag = variable(project, 'PROD_TAG');
  const problems = [
    ...tags.flatMap((tag) => tagProblems(project, tag, images)),
    ...notesProblems(file, notes, prefix, tags),
    ...untaggedImages(images, prefix, tags).map((reference) =>
      failed(
        `image ${reference} has no git tag`,
        `fetch the tags: ${FETCH}; or take the name away: docker image rm ${reference}`,
      ),
    ),
    ...when(prodTag && !tags.some(({ name }) => name === prodTag), () =>
      failed(
        `.env names ${prodTag} for prod, git has no such tag`,
        `${FETCH}, or: npm run switch -- prod --version latest-release`,
      ),
    ),
  ];
  const count = tags.filter(({ record }) => record).length;
  return gather(problems, count === 0 ? 'no release yet' : `${count}: tags, images and ${file} agree`);
}

export const RELEASE_CHECKS: readonly Check[] = [
  { id: 'releases', title: 'tags, images and notes', run: releases },
];
