// What the command line chose for this process: set once by task.ts, read by the few gates that
// honour it (command.ts and files.ts for dry runs, log.ts for verbosity).

export interface Session {
  dryRun: boolean;
  /** A dry run has printed something that it would have done. */
  withheld: boolean;
  verbose: boolean;
  json: boolean;
  /** `--yes`: questions answer themselves. */
  assumeYes: boolean;
  /** `--context`: the Docker context of the engine to work on; undefined is the client's own choice. */
  context: string | undefined;
  /** A socket that leads to that context's engine through a login that is open already (docker/reach.ts). */
  engineSocket: string | undefined;
}

export const session: Session = {
  dryRun: false,
  withheld: false,
  verbose: false,
  json: false,
  assumeYes: false,
  context: undefined,
  engineSocket: undefined,
};
