import type { CID } from 'multiformats/cid'
import type { AbortOptions } from '../base/index.ts'

/** A peer that claims to have something. A hint, never a proof. */
export interface Provider {
  peerId: string
  /** May be empty when the peer's addresses are known from elsewhere. */
  multiaddrs: string[]
  /** Who named it first: another peer; missing: somebody who told this node. */
  namedBy?: string
}

export interface FindOptions extends AbortOptions {
  /** Called once for each peer that was asked. */
  onAsked?: (peerId: string) => void
}

export interface RouterStatus {
  /** Things that are kept announced. */
  keys: number
  /** Things whose announcement is due and not yet sent. */
  backlog: number
  /** How late the oldest due announcement is, in milliseconds. */
  lagMs: number
  /** Announcements sent since start. */
  announced: number
  failed: number
  /** When the whole set was last fully announced, milliseconds since 1970. */
  sweptAt: number | undefined
}

export interface AnnounceOptions {
  /** Before all others, and at once. */
  urgent?: boolean
  /** To all the nearest peers, however long those take to find: somebody decides by it, and not only looks for a provider more. Of urgent ones; others always are. */
  thorough?: boolean
}

/**
 * Who has what, in the whole swarm. Two implementations: the DHT (discovery/dht-router.ts) and one in memory for
 * simulation (discovery/memory-router.ts); one compliance suite runs on both. Knows nothing of models: keys are CIDs.
 */
export interface ContentRouter {
  start: () => Promise<void>
  stop: () => Promise<void>
  /** Keeps `cids` announced from now on. Returns at once: the queue is durable and worked off in the background. */
  announce: (cids: Iterable<CID>, options?: AnnounceOptions) => void
  /** Resolves when no urgent announcement of `cid` is on its way: who searches from now on finds this node, if it went well. Throws the signal's reason. */
  sent: (cid: CID, options?: AbortOptions) => Promise<void>
  /** Stops refreshing `cids`. What is out there expires by itself. */
  withdraw: (cids: Iterable<CID>) => void
  /** Yields each provider once, as found, never this node itself; ends when the search is exhausted. */
  findProviders: (cid: CID, options?: FindOptions) => AsyncIterable<Provider>
  status: () => RouterStatus
}
