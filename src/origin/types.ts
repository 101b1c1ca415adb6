/** What an upstream says of a revision of a repository, checked. */
export interface UpstreamModel {
  /** As it was asked for: what links, and what a caller may see, go by. */
  repo: string
  /** What the upstream calls it, where that is another name: it was renamed, or asked for in other letters. Peers speak of it by that. */
  id?: string | undefined
  /** 40 hex digits: names the content, whichever mirror it comes from. */
  commit: string
  /** Gated or private: whoever asks for files has to be let in by the upstream. */
  restricted: boolean
  /** Sorted by path. */
  files: readonly UpstreamFile[]
  /**
   * Those whose names no model can hold (not ASCII, with spaces, or like another one but for the case of letters): not in the model, and given from the upstream to each who asks. Sorted by
   * path. Undefined while the upstream is silent and the model alone is known.
   */
  foreign: readonly UpstreamFile[] | undefined
}

export interface UpstreamFile {
  path: string
  size: number
  /** What git names the blob by: the content, or a pointer to it when there is a `sha256`. 40 hex digits. */
  oid: string
  /** Of a file in LFS: 64 hex digits. */
  sha256: string | undefined
}

/** Who asks: a token travels to the upstream and nowhere else. */
export interface Caller { token: string | undefined }

export type OriginPhase = 'asking' | 'waiting' | 'fetching' | 'publishing'

/** A model that is on its way from the upstream, to here or to a peer. */
export interface OriginFetch {
  repo: string
  commit: string
  /** asking: who has it; waiting: a peer fetches it; fetching: this node does; publishing: it is being cut into blocks. */
  phase: OriginPhase
  /** The peer that fetches it. */
  peerId: string | undefined
  startedAt: number
  bytesDone: number
  bytesTotal: number
}

export interface OriginStatus {
  /** Without credentials. */
  upstream: string
  fetches: OriginFetch[]
  counters: OriginCounters
}

export interface OriginCounters {
  /** Requests to the upstream by what became of them: ok, refused (4xx), busy (429), failed. */
  requests: Record<RequestResult, number>
  /** Bytes of bodies received from it. */
  bytes: number
  /** Models fetched from it by this node and published. */
  fetched: number
  /** Fetches of this node that failed. */
  failed: number
  /** Models that came from the swarm instead. */
  shared: number
}

export type RequestResult = 'ok' | 'refused' | 'busy' | 'failed'

/** A file that is what the upstream says, of a model that is still on its way. It stays readable until it is closed. */
export interface ArrivedFile {
  readonly size: number
  /** Fills `into` from `offset`. Throws DiskError and what the file system throws. */
  read: (offset: number, into: Uint8Array) => Promise<void>
  close: () => Promise<void>
}

/** A revision of a repository at the upstream, for a caller who was let in. */
export interface OriginModel {
  readonly repo: string
  readonly commit: string
  readonly restricted: boolean
  readonly files: readonly UpstreamFile[]
  /** Not in the model, and at the upstream alone. Undefined while that is silent, and nothing is known of them. */
  readonly foreign: readonly UpstreamFile[] | undefined
  /** Once it is in the swarm. */
  readonly cid: string | undefined
  /** This file's bytes in this model were compared with the upstream's hash. */
  isVerified: (cid: string, path: string) => boolean
  /**
   * The model CID: from the swarm, or fetched, by this node or by the one whose turn it is. Throws UpstreamError and its kin,
   * OutOfSpaceError, QuotaExceededError, DiskError.
   */
  find: (signal: AbortSignal) => Promise<string>
  /** After find(): loads the file and compares its bytes. Throws UpstreamMismatchError, and what loading throws; find it again then. */
  verify: (path: string, signal: AbortSignal) => Promise<void>
  /**
   * Meanwhile: the whole file, once it is here and its hash was compared; never when it comes with the model. Throws the signal's reason. The
   * caller closes it.
   */
  arrival: (path: string, signal: AbortSignal) => Promise<ArrivedFile>
  /** Meanwhile: some bytes of the file, if any are near, that nobody has compared with its hash yet. */
  peek: (path: string, offset: number, options: { length: number, signal: AbortSignal }) => Promise<Uint8Array | undefined>
  /**
   * Of a foreign file, from the upstream, for this caller; of one that is asked for as a whole, the last piece comes when its hash was compared. Throws
   * UpstreamError and its kin, UpstreamMismatchError.
   */
  pass: (path: string, range: { offset: number, length: number }, signal: AbortSignal) => AsyncIterable<Uint8Array>
  /** Nobody in the swarm gives this model any more: it is found anew. */
  lose: (cid: string) => void
}

/** Models of an upstream Hub, by their names there. */
export interface ModelOrigin {
  /** Throws UpstreamRefusedError for what the upstream refuses this caller, UpstreamError, UpstreamTimeoutError, UpstreamBusyError, InvalidPathError. */
  resolve: (repo: string, revision: string, caller: Caller) => Promise<OriginModel>
  /** Branches and tags of a repository, as the upstream tells them. */
  refs: (repo: string, caller: Caller) => Promise<unknown>
  status: () => OriginStatus
}
