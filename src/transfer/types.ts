import type { Libp2p } from '@libp2p/interface'
import type { CID } from 'multiformats/cid'
import type { AbortOptions, Clock, Emitter, Logger, Random } from '../base/index.ts'
import type { LinkLimiter } from '../discovery/index.ts'
import type { ModelStore, StoredModel } from '../storage/store.ts'
import type { LaneSettings } from './lanes/lanes.ts'
import type { RateWindow } from './rate.ts'

export interface ExchangeComponents {
  network: Libp2p
  store: ModelStore
  clock: Clock
  random: Random
  logger: Logger
  /** Caps lanes as it caps libp2p's connections. */
  linkLimiter?: LinkLimiter | undefined
}

export interface ExchangeSettings {
  /** A peer that owes us bytes and sends none for this long is timed out. */
  requestTimeoutMs: number
  /** Peers a load talks to at once. */
  peersMax: number
  serverRequestsPerPeer: number
  uploadBytesPerSecond: number | undefined
  downloadBytesPerSecond: number | undefined
  /** To each single peer, and from each. */
  peerBytesPerSecond?: number | undefined
  /** Caps on what nobody waits for, by time of day: what is sent here, what repairs fetch in src/replication. */
  backgroundRates?: RateWindow[]
  /** Threads that compare blocks with their CIDs. Default 0: the one that receives them does. */
  hashThreads?: number
  lane: LaneSettings
}

/** What carries the bytes of blocks: a TLS connection of their own, or a libp2p stream. */
export type TransportKind = 'lane' | 'stream'

export interface ExchangeEvents {
  'peer:banned': { peerId: string, reason: string }
  /** A peer asked for our inventory of this model, so it holds or loads some of it itself. */
  'peer:interested': { model: string, peerId: string }
}

export interface PeerTransferStatus {
  peerId: string
  /** Of the newest way to or from it; undefined before the first. */
  transport: TransportKind | undefined
  /** Bytes per second over the last seconds. */
  receiveRate: number
  sendRate: number
  receivedBytes: number
  sentBytes: number
  score: number
  banned: boolean
  banReason: string | undefined
  banSecondsLeft: number | undefined
}

/**
 * Moves bytes between this node and its peers: serves what the store has recorded, fetches what a load lacks.
 * Decides nothing about what should be where.
 */
export interface Exchange {
  readonly events: Emitter<ExchangeEvents>
  start: () => Promise<void>
  /** Ends open requests and streams, and refuses new ones. */
  stop: () => Promise<void>
  /**
   * The verified bytes of a manifest or file index, from the first of `peers` that has it (asked a few at a time).
   * Throws NoProviderError when all of them lack it or fail. A peer that sends wrong bytes is banned.
   */
  fetchMetadata: (cid: CID, peers: string[], bytesMax: number, options?: AbortOptions) => Promise<{ bytes: Uint8Array, from: string }>
  /** Starts fetching the missing blocks of a model the store knows. One fetch a model; the node shares it between callers. */
  fetchModel: (init: ModelFetchInit) => ModelFetch
  peers: () => PeerTransferStatus[]
  isBanned: (peerId: string) => boolean
  /** The peers whose inventory of this model is known now, with how many of its block bytes they have recorded. */
  holders: (model: string) => Array<{ peerId: string, presentBytes: number, complete: boolean }>
}

export interface ModelFetchInit {
  model: StoredModel
  /** Positions in `model.files` to fetch; default all. */
  files?: number[]
  /** Of those, only what is asked for by `want` and `read`. */
  onDemand?: boolean
  order?: 'rarest' | 'sequential'
  /** True while nobody waits for it (replication): those who serve it serve others first. Default false. */
  isBackground?: () => boolean
}

export interface ModelFetchStats {
  /** Bytes of the wanted files, and how many of them are recorded. */
  bytesTotal: number
  bytesDone: number
  /** Blocks that are wanted and not recorded. */
  missingBlocks: number
  /** Block bytes that arrived for this fetch, by peer, and in all; duplicates not counted. */
  fetchedBytes: number
  peers: Record<string, number>
  /** Block bytes received and thrown away. */
  duplicateBytes: number
  /** Bytes per second over the last seconds. */
  rate: number
  /** Peers that delivered in the last seconds. */
  activePeers: number
  /** Peers whose inventory is open, that have some of it and can be asked for it. */
  readyPeers: number
}

export interface ModelFetchEvents {
  /** Something was recorded. Not more than ten times a second. */
  progress: ModelFetchStats
  /** No known peer has any of the missing blocks: the node should look for more providers. Told again each few seconds while so. */
  starved: { missingBlocks: number }
  /** A peer left the fetch: gone, banned, or it does not know the model. */
  'peer:left': { peerId: string, reason: string }
}

export interface ModelFetch {
  readonly events: Emitter<ModelFetchEvents>
  /** Resolves when every wanted block is recorded. Rejects only on a store error or stop; lack of peers is told by `starved`. */
  readonly done: Promise<void>
  /** Over, well or not: nothing more is fetched, and what is under way is being settled. */
  readonly ended: boolean
  /** Opens the peer's inventory (dialling it if need be) and fetches from it what it has. Idempotent; never throws. */
  addPeer: (peerId: string) => void
  /** One that has probably found this node just as well: it is dialled only if it does not call within seconds. */
  expectPeer: (peerId: string) => void
  /** Tells whoever waits for blocks that they do not come. The fetch goes on: what others ask for may. */
  giveUp: (reason: Error) => void
  /** Widens the wanted files. `onDemand`: of these only what is asked for by `want` and `read`. */
  addFiles: (files: number[], options?: { onDemand?: boolean }) => void
  /** Keeps it from ending when nothing is missing for a moment, until the returned function is called. */
  hold: () => () => void
  /** Moves a range of a file to the front and resolves when it is recorded. Rejects with the signal's reason or when the fetch ends first. */
  want: (file: number, offset: number, length: number, options?: AbortOptions) => Promise<void>
  /**
   * Moves the bytes of a file from `offset` to the front and fills `into` with them as soon as they are verified; they may not be
   * recorded yet. Rejects as `want` does.
   */
  read: (file: number, offset: number, into: Uint8Array, options?: AbortOptions) => Promise<void>
  /** Resolves when these files are recorded in full, without moving them to the front. Rejects when the fetch ends first. */
  complete: (files: Iterable<number>) => Promise<void>
  stats: () => ModelFetchStats
  stop: () => Promise<void>
}
