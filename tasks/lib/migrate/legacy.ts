// The older setup as data: what was found of it, enough to stop it, to carry it over and to bring it back.
export interface Legacy {
  service: string;
  /** Compose project it belongs to. */
  project: string;
  /** Absolute paths of its compose files, in compose's order. */
  composeFiles: string[];
  /** Folder that relative paths in them are resolved against. */
  directory: string;
  /** There is no compose file: it was rebuilt from the container. */
  isRebuilt: boolean;
  /** running; stopped: its container is there; absent: only its files are. */
  state: 'running' | 'stopped' | 'absent';
  /** Its container, for people. */
  container: string | undefined;
  image: string;
  /** Host ports. */
  ports: number[];
  /** As it is mounted, and with symbolic links resolved. */
  data: { source: string; path: string };
  models: string | undefined;
  /** Read-only mounts: its settings; not carried over as they are. */
  readOnlyMounts: string[];
  network: { name: string; subnets: string[] } | undefined;
  /** Why it was taken for the older setup. */
  evidence: string[];
}

/** A mount, as compose and the engine both describe it. */
export interface Mount {
  type: string;
  /** Host path, or volume name. */
  source: string;
  target: string;
  isReadOnly: boolean;
}

/** What a container or a compose file says of the service, in one form. */
export interface Shape {
  image: string;
  mounts: Mount[];
  /** Host ports. */
  ports: number[];
  networks: string[];
}
