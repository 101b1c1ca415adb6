/** What a node tells of itself: what `models`, `show`, `transfers`, `peers` and `status` give. Sizes in bytes, times of day in milliseconds since 1970. */
import type { RouterStatus } from '../discovery/router.ts'
import type { Tensor } from '../model/types.ts'
import type { OriginStatus } from '../origin/types.ts'
import type { ReplicationReport } from '../replication/types.ts'
import type { StoreStatus } from '../storage/store.ts'

export interface LoadProgress {
  /** `finding`: looking for a provider or fetching metadata; `loading`: blocks; `done`. */
  phase: 'finding' | 'loading' | 'done'
  /** Bytes verified and recorded, of the wanted files; includes what was here before. */
  bytesDone: number
  bytesTotal: number
  /** Bytes per second over the last seconds. */
  rate: number
  /** Peers that have delivered lately. */
  peers: number
  /** Seconds; undefined while unknown. */
  secondsLeft: number | undefined
}

export interface ModelSummary {
  cid: string
  files: number
  bytes: number
  presentBytes: number
  complete: boolean
  /** Kept here until it is unpinned. */
  pinned: boolean
  /** Added here: kept until it is removed. */
  published: boolean
  /** It stays for the swarm: some of it is promised, on its way, or the last copy known. */
  keeps: boolean
  /** Milliseconds since 1970; `usedAt` too: when it was loaded, opened or read last. */
  addedAt: number
  usedAt: number
  /** The directory of its files. Undefined in memory. */
  path: string | undefined
}

export interface FileDetails {
  path: string
  size: number
  blocks: number
  presentBlocks: number
  /** Hex. */
  sha256: string
  /** How it was cut: a name of model/chunkers.ts. */
  chunker: string
  /** The user's own file, referenced where it lies. */
  inPlace: boolean
  /** Where a file in place was that is not there now, or may not be read. */
  away: string | undefined
  tensorCount: number
  /** Undefined when they were not asked for. */
  tensors: Tensor[] | undefined
}

export interface ModelDetails extends ModelSummary {
  /** Sorted by path. */
  fileList: FileDetails[]
  /** Peers known to hold some of it. */
  holders: Array<{ peerId: string, presentBytes: number, complete: boolean }>
  shards: number
  blocks: number
}

export interface TransferStatus {
  cid: string
  /** Milliseconds since 1970. */
  startedAt: number
  progress: LoadProgress
  /** Block bytes by the peer they came from. */
  peers: Record<string, number>
  /** How many callers wait for it. */
  callers: number
  /** All that its callers have asked for so far is here, and not all of the model: they have it open. */
  resting: boolean
  /** It is some files of this model of the upstream, `ORG/NAME`, which another node is still fetching. */
  partOf?: string
}

export interface PeerStatus {
  peerId: string
  multiaddrs: string[]
  connected: boolean
  direction: 'inbound' | 'outbound' | undefined
  /** What carries block bytes between this node and the peer; undefined while that is away, or before the first. */
  transport: 'lane' | 'stream' | undefined
  /** Bytes per second over the last seconds. */
  receiveRate: number
  sendRate: number
  receivedBytes: number
  sentBytes: number
  /** 0 (useless) to 1 (perfect). */
  score: number
  banned: boolean
  banReason: string | undefined
  banSecondsLeft: number | undefined
  /** Of the last ping, there and back, in milliseconds. */
  latencyMs: number | undefined
}

export interface NodeStatus {
  peerId: string
  version: string
  /** Where others are told to find it, each with /p2p/ and its id: where it listens, or what `announceAddresses` has instead. */
  multiaddrs: string[]
  /** Where it listens. */
  listening: string[]
  /** Milliseconds since 1970. */
  startedAt: number
  uptimeSeconds: number
  peersConnected: number
  models: { count: number, complete: number, pinned: number, bytes: number }
  transfers: number
  storage: StoreStatus
  announce: RouterStatus
  /** Blocks found bad or gone since the node started. */
  blocksLost: number
  replication: ReplicationStatus
  /** Absent without hf.upstream. */
  origin?: OriginStatus
  labels: Record<string, string>
  /** What an operator should look at, in words; empty when all is well. */
  problems: string[]
}

/** Of `status()`: docs/REPLICATION.md says what each figure means. */
export type ReplicationStatus = ReplicationReport
