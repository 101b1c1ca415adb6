import type { AbortOptions, Emitter, ProgressOptions } from '../base/index.ts'
import type { RepoName } from '../model/repo-name.ts'
import type { ModelOrigin } from '../origin/types.ts'
import type { DrainStatus, ShardStatus } from '../replication/types.ts'
import type { FileGuard, GcResult, RemoveResult, VerifyProgress, VerifyResult } from '../storage/store.ts'
import type { LoadProgress, ModelDetails, ModelSummary, NodeStatus, PeerStatus, TransferStatus } from './status-types.ts'

export type { NodeSettings } from './settings.ts'
export type * from './status-types.ts'
export interface AddOptions extends AbortOptions, ProgressOptions<AddProgress> {
  /** Reference the user's files instead of copying them. Default false. */
  inPlace?: boolean
  /** Follow symbolic links instead of refusing them. Default false. */
  follow?: boolean
  /** Follow those that lead to files below one of these directories, and refuse others. */
  followWithin?: readonly string[]
  /** The target number of replicas the swarm keeps. Default `replication.target`; 0: none. */
  replicas?: number
}

export interface PinOptions {
  /** Publishes a new target number of replicas. Only for a model this node published. */
  replicas?: number
}

/**
 * What is bad of what is recorded, and which models that were added or pinned here are not whole: the bytes they lack. `away`: how many
 * of its files are in place and not there now, and where the first of them was.
 */
export interface Verification extends VerifyResult { lacking: Array<{ cid: string, bytes: number, published: boolean, away: { files: number, path: string } | undefined }> }

/** How far a model is from having its target of proven replicas. */
export interface ReplicationProgress {
  shards: number
  shardsDone: number
  bytesDone: number
  bytesTotal: number
  /** Fewest replicas of any shard. */
  replicasMin: number
  target: number
}

export interface DrainOptions extends AbortOptions, ProgressOptions<DrainProgress> {
  /** Stop waiting after this long; the last copies go first; holders that are away are waited for only if there is time. */
  deadlineMs?: number
}

export interface DrainProgress {
  shards: number
  shardsDone: number
  bytesDone: number
  bytesTotal: number
}

export interface DrainResult {
  /** Every shard has its target of proven replicas elsewhere. */
  complete: boolean
  seconds: number
  /** What was not handed over in time. */
  left: DrainStatus['left']
}

export type { ReplicationCounters } from '../replication/types.ts'
export type { RateWindow } from '../transfer/rate.ts'
export type { ArrivedFile, Caller, ModelOrigin, OriginFetch, OriginModel, OriginStatus, UpstreamFile } from '../origin/types.ts'

export interface AddProgress {
  bytesDone: number
  bytesTotal: number
  /** The file that is being read. */
  path: string
}

export interface AddResult {
  cid: string
  files: number
  bytes: number
  blocks: number
  /** Bytes of blocks that were not here before. */
  newBytes: number
  seconds: number
  /** What was left out and why, in words for a person: empty directories. */
  warnings: string[]
}

export interface LoadOptions extends AbortOptions, ProgressOptions<LoadProgress> {
  /** Only files whose path matches one of these globs (picomatch); default all. */
  include?: string[]
  /** `sequential` fetches in file order; default `rarest`. */
  order?: 'rarest' | 'sequential'
  /** Fetches only what is read or waited for; `done` then waits for `close`, unless all was here. Default false: all that is included. */
  onDemand?: boolean
  /** Makes room for all that is included before anything is fetched. Default true; false only on demand: room is made for each range that is asked for. */
  reserve?: boolean
  /** Give up when no provider was found for this long. Default `transfer.providerTimeoutMs`. */
  providerTimeoutMs?: number
}

export interface LoadResult {
  cid: string
  /** The directory of the complete files. Undefined in memory. */
  path: string | undefined
  bytes: number
  seconds: number
  /** Block bytes that came over the network for this load. */
  fetchedBytes: number
  /** Bytes that were here before, or copied from other local files. */
  reusedBytes: number
  /** Block bytes received and thrown away (endgame losers, cut transfers). */
  duplicateBytes: number
  /** Block bytes by the peer they came from. */
  peers: Record<string, number>
}

/** A model being read while it may still load. */
export interface OpenModel {
  readonly cid: string
  readonly files: readonly OpenFile[]
  /** One of them. Throws FileNotFoundError. */
  file: (path: string) => OpenFile
  /** Resolves when all wanted files are complete. */
  readonly done: Promise<LoadResult>
  progress: () => LoadProgress
  /** Resolves when bytes [offset, offset + length) of the file are verified and on disk; moves them to the front of the fetch. */
  waitFor: (path: string, offset: number, length: number, options?: AbortOptions) => Promise<void>
  /** Moves the bytes to the front of the fetch as `waitFor` does, and gives them as soon as they are verified. */
  read: (path: string, offset: number, length: number, options?: ReadOptions) => Promise<Uint8Array>
  /** Leaves the load; it ends when the last one has left. */
  close: () => void
}

export interface ReadOptions extends AbortOptions {
  /** Where to read to, of just that length. Default: a buffer of its own. */
  into?: Uint8Array
}

export interface OpenFile {
  path: string
  size: number
  sha256: string
  /** The file on disk, sparse while incomplete. Undefined in memory. */
  localPath: string | undefined
  complete: boolean
  wanted: boolean
  /** Hex; what git names the content by. Of small files. */
  gitSha1?: string | undefined
  /** Of a file in place: what it must still look like. Whoever reads it by itself has to compare. */
  guard?: FileGuard | undefined
}

/** What a model is made of, without its bytes. */
export interface ModelDescription {
  cid: string
  /** Sorted by path. */
  files: readonly DescribedFile[]
}

export interface DescribedFile {
  path: string
  size: number
  /** Hex. */
  sha256: string
  /** Hex; what git names the content by. Undefined for large files, and for models that were published without it. */
  gitSha1: string | undefined
  /** The file index CID, which names the bytes; not of what only an upstream names. */
  index?: string
}

export interface DescribeOptions extends AbortOptions {
  /** Give up when it is not held here and nobody was found to have it for this long. Default, and at most, `transfer.providerTimeoutMs`. */
  providerTimeoutMs?: number
}

/** A file that was whole on this machine when it was asked for. */
export interface WholeFile {
  readonly size: number
  /** Fills `into` from `offset`. Throws DiskError when that part is found bad or gone: load the file then. */
  read: (offset: number, into: Uint8Array) => Promise<void>
}

/** A name that Hugging Face clients may ask for, and the model it stands for here. */
export interface ModelLink extends RepoName {
  cid: string
  /** Milliseconds since 1970. */
  linkedAt: number
  /** Of one that came from the upstream. Absent when a user made the link. */
  origin?: LinkOrigin
}

export interface LinkOrigin {
  /** What the upstream names it by. */
  commit: string
  /** Gated or private: the upstream decides for each caller. */
  restricted: boolean
  /** What the upstream calls the repository, where that is another name. */
  id?: string
}

export interface ShowOptions extends AbortOptions {
  /** Default true. False: only how many there are, which is quick after the first time. */
  tensors?: boolean
}

export interface NodeEvents {
  'model:added': { cid: string }
  'model:loaded': { cid: string }
  'model:removed': { cid: string }
  'load:started': { cid: string }
  'load:failed': { cid: string, error: Error }
  'peer:connected': { peerId: string }
  'peer:disconnected': { peerId: string }
  'peer:banned': { peerId: string, reason: string }
  'volume:state': { writable: boolean, error?: Error }
  /** A shard came back to its target number of replicas; `ms` since it fell below. */
  'replication:restored': { cid: string, ms: number }
}

/**
 * A running node. Made by createNode(), which has started it. What each method throws besides: InvalidCidError where it takes
 * a CID and gets something else; AbortError when its signal fires; NodeStoppedError once the node is stopping, where there is
 * work to do. docs/ERRORS.md says of each error whether a retry helps. `bytes` are bytes of files, `seconds` wall time.
 */
export interface ShoalNode {
  readonly peerId: string
  readonly events: Emitter<NodeEvents>
  /** Where it listens, or what `announceAddresses` has instead: as others are told, each with /p2p/ and its id. */
  multiaddrs: () => string[]
  /** Connects to a peer by address, within ten seconds, and gives its id. Throws JoinFailedError, SwarmKeyError. */
  connect: (multiaddr: string, options?: AbortOptions) => Promise<string>
  /**
   * Publishes a file or a directory of this machine. Resolves when all of it is durable here; announcing and replicas follow
   * (`replicated`). Throws, of what it is given, UsageError (replicas, the node's own files), UnreadableSourceError, SymbolicLinkError,
   * UnsupportedFileError, InvalidPathError, EmptyModelError, LimitExceededError, SourceChangedError; of the disk, QuotaExceededError,
   * OutOfSpaceError, StoreReadOnlyError, DiskError.
   */
  add: (path: string, options?: AddOptions) => Promise<AddResult>
  /**
   * Gets a model here, or the files of it that `include` names; at once where it is. Callers of one model share its fetch,
   * which ends when the last of them has left; what has come stays. Throws as open(), and NoProviderError too when nobody has
   * had the rest for `transfer.stallTimeoutMs`.
   */
  load: (cid: string, options?: LoadOptions) => Promise<LoadResult>
  /**
   * The same for who reads meanwhile: resolves when the files are known and there is room for what is wanted of them. Call
   * close() at the end: the load lasts, and the model is not evicted, until then. Throws NoProviderError when nobody was found to
   * have it for `providerTimeoutMs`, UsageError when no file matches `include`, InvalidManifestError, InvalidFileIndexError,
   * QuotaExceededError, OutOfSpaceError, StoreReadOnlyError, DiskError.
   */
  open: (cid: string, options?: LoadOptions) => Promise<OpenModel>
  /** The files of a model, here or in the swarm, from its manifest: no block is fetched. Throws NoProviderError when nobody had it in time, InvalidManifestError, InvalidFileIndexError. */
  describe: (cid: string, options?: DescribeOptions) => Promise<ModelDescription>
  /** A file that is complete here, or undefined. Counts as use of the model. */
  wholeFile: (cid: string, path: string) => WholeFile | undefined
  /** Lets a repository name stand for a model, here. Throws InvalidRepoNameError, InvalidCidError, LimitExceededError, DiskError. */
  link: (name: RepoName, cid: string) => Promise<ModelLink>
  /** Takes the name away; the model stays. Throws LinkNotFoundError, DiskError. */
  unlink: (name: RepoName) => Promise<ModelLink>
  /** Models that the swarm lacks come from here; undefined without `origin.upstream`. */
  readonly origin: ModelOrigin | undefined
  /** All links, or the revisions of one repository, by name. */
  links: (repo?: string) => ModelLink[]
  /** What is held here, in full or in part, but for the parts in which an upstream's model comes. */
  models: () => ModelSummary[]
  /** Details of a model held here; throws ModelNotFoundError. */
  show: (cid: string, options?: ShowOptions) => Promise<ModelDetails>
  /**
   * Takes a model away from this node: it is withdrawn, then the bytes go that no other model here has, but for files in place, which
   * are the user's. Other nodes keep theirs. Throws ModelNotFoundError, ModelInUseError while it is loaded or read, DiskError.
   * `replicas`: what this node asked the swarm to keep of it, which goes on; unpin() ends that too.
   */
  remove: (cid: string) => Promise<RemoveResult & { replicas?: number }>
  /**
   * Keeps it here; with `replicas`, also changes how many the swarm keeps. Throws ModelNotFoundError, DiskError, and UsageError for a
   * number out of bounds or where this node did not add it.
   */
  pin: (cid: string, options?: PinOptions) => Promise<void>
  /** Lets it be evicted here. Of a model this node added: ends it everywhere, also after it was removed here. Throws ModelNotFoundError, DiskError. */
  unpin: (cid: string) => Promise<void>
  /** Holders of each shard. Throws ModelNotFoundError when this node knows nothing of it. */
  shards: (cid: string) => ShardStatus[]
  /** Resolves when every shard of the model has its target of proven replicas. Throws ModelNotFoundError when this node knows nothing of it. */
  replicated: (cid: string, options?: AbortOptions & ProgressOptions<ReplicationProgress>) => Promise<void>
  /** Hands over everything this node promised to keep, and serves meanwhile. It stays drained until it is started again. */
  drain: (options?: DrainOptions) => Promise<DrainResult>
  /**
   * Removes what no model names (abandoned adds and fetches), and evicts least recently used cached models down to the quota, if
   * there is one. Waits for running adds first. `dryRun`: only says what would go. Throws DiskError.
   */
  gc: (options?: { dryRun?: boolean }) => Promise<GcResult>
  /**
   * Re-hashes every recorded block, of one model or of all, and withdraws the bad ones; one that cannot be read is bad, and no
   * error. Throws ModelNotFoundError.
   */
  verify: (cid?: string, options?: AbortOptions & ProgressOptions<VerifyProgress>) => Promise<Verification>
  /** Loads under way that somebody waits for. Never throws. */
  transfers: () => TransferStatus[]
  /** Peers that are connected, and others of which something is known (bytes they moved, a ban). Never throws. */
  peers: () => PeerStatus[]
  /** This node as a whole, from memory but for the free space of its volume. */
  status: () => Promise<NodeStatus>
  /** The swarm key and addresses others need to join, as a token. */
  invite: () => string
  /**
   * Ends open work, then the network; the store comes last, and what was written is recorded by then. All before it have four seconds
   * together: what takes longer is logged, and waited for no more. Leaves no timer, socket or listener. Idempotent.
   */
  stop: () => Promise<void>
}
