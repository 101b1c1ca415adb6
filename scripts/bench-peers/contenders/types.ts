/** The one file that everybody moves. */
export interface Source {
  path: string
  bytes: number
  /** Of the whole file, hex. */
  sha256: string
}

export interface Loaded {
  /** Where the bytes are now: one file, or a directory that `check` understands. */
  path: string
  /** Seconds as the loader measured them, where its process also does what nobody should pay for (starting, dialling). */
  seconds?: number
  /** What to show beside the figure. */
  note?: string
}

/** A loader that is up and idle. */
export interface Loader extends AsyncDisposable {
  pids: number[]
  /**
   * Moves this many bytes and forgets them. For programs that are compiled as they run, whose first second is not what
   * a process that stays up does.
   */
  warmUp?: (bytes: number) => Promise<void>
  run: () => Promise<Loaded>
}

/** Seeders that are up and have the source. */
export interface Swarm extends AsyncDisposable {
  pids: number[]
  /** What the seeders read from, to be brought into the page cache before each run. */
  sources: string[]
  /** Starts a loader of these seeders, or of the first `count`, that puts things under `directory`. */
  loader: (directory: string, count: number) => Promise<Loader>
  /** Throws unless what was loaded is the source. Left out: `path` is one file with the source's sha-256. */
  check?: (loaded: Loaded) => Promise<void>
}

export interface Contender {
  name: string
  /** Among those whose best Shoal is held against. */
  rival: boolean
  encrypted: boolean
  /** True when its own seconds end with the bytes synced; else the bench syncs them within the measured time. */
  syncs: boolean
  /** From how many seeders at once it can load. */
  seedersMax: number
  /** Larger sources are left out: it would take too long to learn nothing more. */
  bytesMax: number
  /** Undefined, or what is missing and how to get it. */
  absent: () => string | undefined
  /** Starts `count` seeders. What they need to keep goes under `directory`. */
  start: (source: Source, directory: string, count: number) => Promise<Swarm>
}
