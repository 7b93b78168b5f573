// A release that is ready for its commit point: all that is needed to finish it, which is what the journal
// keeps, so that another run can.
import { type Journal, openJournal } from '../journal.ts';
import type { Project } from '../project.ts';

export interface PreparedRelease {
  tag: string;
  /** Without prefix. */
  version: string;
  branch: string;
  /** The branch's commit before and after. */
  from: string;
  commit: string;
  tagObject: string;
  /** `Image.id` of the image that was tried. */
  digest: string;
  platforms: Record<string, string>;
  /** The tag released before on this branch. */
  previous: string | null;
  /** `latest` shall follow. */
  movesLatest: boolean;
  /** Publish it: image to the registry if one is set, branch and tag to the remote. */
  push: boolean;
  /** Switch prod to it at the end. */
  deploy: boolean;
  /** The commit that joins the release with what others pushed meanwhile; see publish.ts. */
  merge?: { from: string; to: string };
}

/** What is asked for on top of what the run that died was asked for. */
export interface ResumeOptions {
  push: boolean;
  deploy: boolean;
}

/** What the journal keeps of a run that has not prepared its release yet. */
export type ReleaseJournal = PreparedRelease | { tag: string; started: true };

export function isPrepared(entry: ReleaseJournal): entry is PreparedRelease {
  return !('started' in entry);
}

export function releaseJournal(project: Project): Journal<ReleaseJournal> {
  return openJournal<ReleaseJournal>(project.root, 'release');
}
