// What a migration is planned from: everything that survey.ts has found out, in one value.
import type { EnvironmentName } from '../project.ts';
import type { EngineNetwork, EngineVolume } from './engine-view.ts';
import type { Legacy } from './legacy.ts';

export interface Owner {
  uid: number;
  gid: number;
  /** Permission bits. */
  mode: number;
}

export interface MigrationFacts {
  now: Date;
  legacy: Legacy;
  answered: boolean;
  healthPath: string;
  data: { bytes: number; owner: Owner; isMount: boolean; mayMove: boolean };
  /** Where the new data goes, links resolved. `entries`: undefined when nothing is there. */
  target: { path: string; entries: number | undefined; owner: Owner | null };
  /** Free bytes at each place that will be written to; places of one file system share an id. */
  room: { what: 'copy' | 'backup' | 'models'; place: string; filesystem: string; free: number }[];
  backups: string;
  ports: Record<EnvironmentName, { port: number; holder: string | undefined }>;
  /** Names of variables, for remedies. */
  variables: { subnet: string; data: string; port: Record<EnvironmentName, string> };
  subnets: { wanted: string[]; free: string; ownNetworks: string[]; networks: EngineNetwork[] };
  models: {
    wanted: string;
    exists: boolean;
    old: EngineVolume | undefined;
    canReuse: boolean;
    bytes: number | null;
    unreadable: number;
    users: string[];
  };
  /** Running containers of the new project. */
  running: string[];
  /** Running containers in the old network that are not the old service. */
  neighbours: string[];
  hasOldImage: boolean;
  /** Paths that must not be there yet, but are. */
  inTheWay: string[];
}
