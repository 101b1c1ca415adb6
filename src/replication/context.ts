import type { Random } from '../base/index.ts'
import type { ModelView } from './model-view.ts'
import type { Peer, PeerTable } from './peer-table.ts'
import type { Scene } from './planner.ts'
import type { ReplicaPorts, ReplicationSettings } from './types.ts'

/** What the parts of a replicator share. One thread, no waiting: whoever is called may change it. */
export interface Context extends Scene {
  readonly self: Peer
  readonly settings: ReplicationSettings
  readonly ports: ReplicaPorts
  readonly random: Random
  readonly peers: PeerTable
  readonly views: Map<string, ModelView>
  /** Peers that may be asked for space and share no model with this node. */
  readonly strangers: Map<string, Peer>
  /** Of the call that is being served. */
  now: number
  draining: boolean
  /** It drains, and waits for nobody who may come back: it has a deadline, or did so for long. */
  inHaste: boolean
  settled: boolean
  /** Something is to be looked at again at the next tick. */
  touch: () => void
  /** What this node says of itself has changed: others are to be told. */
  changed: () => void
  /** Somebody came, went, or has other replicas than before: after a start, that is not settled yet. */
  viewChanged: () => void
  /** This peer is said to have to do with this model: to be asked, and told what this node has of it. */
  met: (view: ModelView, peerId: string) => void
  /** Look again no later than then. */
  wake: (at: number) => void
}

/** Names an exchange of messages among those that are open; not a secret. */
export function exchangeId (random: Random): string {
  return Buffer.from(random.bytes(8)).toString('hex')
}

const STRANGERS_MAX = 256

export function addStranger (strangers: Map<string, Peer>, peer: Peer): void {
  for (const oldest of strangers.keys()) {
    if (strangers.size < STRANGERS_MAX) break
    strangers.delete(oldest)
  }
  strangers.set(peer.id, peer)
}
