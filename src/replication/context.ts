import { PEERS_TRACKED_MAX, type Random } from '../base/index.ts'
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
  /** Whose look this is: what is to be looked at later is that model. */
  looking: ModelView | undefined
  /** Something has to be done at the next tick; this model is to be looked at again then. */
  touch: (view?: ModelView) => void
  /** All models that this peer has to do with. */
  touchPeer: (peerId: string) => void
  /** What this node says of this model, or of itself, has changed: others are to be told. */
  changed: (view?: ModelView) => void
  /** Somebody came, went, or has other replicas than before: after a start, that is not settled yet. */
  viewChanged: () => void
  /** This peer is said to have to do with this model, by that peer or by a search: to be asked, and told what this node has of it. */
  met: (view: ModelView, peerId: string, by?: string) => void
  /** Look again no later than then: at the model that is being looked at, if one is. */
  wake: (at: number) => void
}

/** Names an exchange of messages among those that are open; not a secret. */
export function exchangeId (random: Random): string {
  return Buffer.from(random.bytes(8)).toString('hex')
}

/**
 * Of each that can be reached one has to be remembered: each shard asks others, and where they push each other out their answers come to nothing.
 * So those go first that cannot be reached.
 */
export function addStranger ({ strangers, ports }: Pick<Context, 'strangers' | 'ports'>, peer: Peer): void {
  if (strangers.size >= PEERS_TRACKED_MAX && !strangers.has(peer.id)) {
    const reachable = new Set(ports.reachable())
    for (const id of strangers.keys()) if (!reachable.has(id)) strangers.delete(id)
    for (const oldest of strangers.keys()) {
      if (strangers.size < PEERS_TRACKED_MAX) break
      strangers.delete(oldest)
    }
  }
  strangers.set(peer.id, peer)
}
