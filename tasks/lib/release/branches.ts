// From which branches releases are made: the release branch, and maintenance branches for fixes of older
// versions, which `latest` never follows. Pure.
import type { Project } from '../project.ts';

type ReleaseSettings = Pick<Project, 'release'>;

export function isMaintenanceBranch({ release }: ReleaseSettings, branch: string): boolean {
  if (branch === release.branch) return false;
  return release.maintenance.some((pattern) =>
    new RegExp(`^${pattern.split('*').map(escapeRegExp).join('.*')}$`).test(branch),
  );
}

export function isReleaseBranch(project: ReleaseSettings, branch: string): boolean {
  return branch === project.release.branch || isMaintenanceBranch(project, branch);
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
