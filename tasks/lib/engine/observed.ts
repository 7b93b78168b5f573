// What there is to know about a machine's Docker engine: filled by engine-observe.ts, or by a test, and
// read by the plan and by the advice.

export const ENGINE_PARTS = [
  'client',
  'daemon',
  'containerd',
  'runc',
  'iptables',
  'init',
  'compose',
  'buildx',
] as const;
export type EnginePart = (typeof ENGINE_PARTS)[number];
export type ServerAnswer =
  | { state: 'ready'; version: string }
  | { state: 'denied' | 'unreachable'; detail: string };

export interface EngineObserved {
  platform: NodeJS.Platform;
  /** Node's name of the processor, e.g. `x64`, `arm64`. */
  arch: string;
  root: boolean;
  /** True when systemd is the running init, not merely installed. */
  systemd: boolean;
  /** From os-release: `debian`, 12, `bookworm`. */
  distribution: { id: string; version: number; codename: string; name: string };
  /** Where the client would connect to: DOCKER_HOST, else the current context's endpoint. */
  endpoint: string;
  server: ServerAnswer;
  /** The version, or the path, of each part that is there. */
  parts: Partial<Record<EnginePart, string>>;
  /** Nothing of an earlier engine: neither its configuration nor its data. */
  untouched: boolean;
}
