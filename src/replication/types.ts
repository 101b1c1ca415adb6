/**
 * The words of replication, and the seam between its deciding part (replicator.ts, pure: messages and times in, calls of
 * the ports out) and what carries it out: libp2p, disk and clock in a node, simulated ones in scripts/sim.
 *
 * A shard is named by its model's CID and its number: the shards of the model's distinct files, in manifest order.
 * Times are milliseconds of the injected monotonic clock unless a name says otherwise; sizes are bytes.
 */
import type { Random } from '../base/index.ts'

/** How many replicas each shard of a model is to have. `target` 0: no more than what users load; nothing is kept for it. */
export interface Policy {
  /** Below this it is urgent. */
  min: number
  /** What repair restores. */
  target: number
  /** Above this the surplus is let go. */
  max: number
}

/** What a publisher says about a model, signed. Of one publisher's records the highest sequence wins. */
export interface PolicyRecord extends Policy {
  model: string
  sequence: number
  /** The peer id of the publisher (Ed25519, so it carries the key that checks the signature). */
  publisher: string
  /** The signed record as it travels: checked once, where it came in. */
  bytes: Uint8Array
}

export interface ReplicationSettings extends Policy {
  /** Space this node gives to the swarm; 0: it keeps only what it loads, publishes and pins. */
  donateBytes: number
  /** How long a missing holder may come back before it is replaced, by what is left: one copy, two, more. */
  graceLastCopyMs: number
  graceTwoCopiesMs: number
  graceDefaultMs: number
  /** After a start with commitments, nothing is repaired or trimmed until the view has not changed for this long. */
  settleMs: number
  /** A proof counts for this long. */
  proofTtlMs: number
  /** Silence after which a peer is suspect, and down. */
  suspectMs: number
  downMs: number
  /** Rank j of the holders of a shard waits j times this before it acts in the place of rank 0. */
  rankDelayMs: number
  /** The brake: this share of the known peers, or a whole domain, lost within the window. It lets go after `brakeMaxMs` at the latest. */
  brakeShare: number
  brakeWindowMs: number
  brakeMaxMs: number
  /** A holder lets go of one surplus replica of a shard at most once in this time, and only if the others were proven in trimProofMs. */
  trimEveryMs: number
  trimProofMs: number
  /** What several holders dispute and fewer confirm is offered at most once in this time. */
  disputedEveryMs: number
  /** Repair bytes this node receives per second, and shards it receives at once. The last copy of a shard ignores both. */
  repairBytesPerSecond: number
  pullsMax: number
  /** Offers one node has open at once. */
  offersMax: number
  /** A donor of whose space more than this share is promised moves shards to others with far more, one each `rebalanceEveryMs`; 1: never. */
  rebalanceShare: number
  rebalanceEveryMs: number
  /** Each held block is re-hashed once in this time. */
  scrubPeriodMs: number
  /** With so many bad places in one scrub pass the volume is taken for a failing one, and drained. */
  scrubSuspectBlocks: number
}

export type DeclineReason = 'held' | 'space' | 'busy' | 'draining' | 'unknown-model' | 'leaving'

/** What a peer says about its part of one model. Bitfields have one bit a shard (base/bitfield.ts). */
export interface ModelClaim {
  model: string
  shards: number
  /** PolicyRecord.bytes of every publisher known. */
  policies: Uint8Array[]
  /** Kept for good. */
  committed: Uint8Array
  /** Accepted and on its way. */
  pending: Uint8Array
  /** Here, but free to go. */
  cached: Uint8Array
  /** Other peers that have to do with this model. */
  members: string[]
}

/**
 * What replicators say to each other: unordered, unreliable, possibly twice. Each message stands for itself; what was
 * not answered is said again at a later tick.
 */
export type ReplicaMessage =
  | {
    type: 'state'
    /** Drawn at each start, so that others notice a restart. */
    incarnation: string
    /** Counts changes of what this message says; an older one is ignored. */
    version: number
    /** The newest state of the receiver that the sender has; empty and 0 when none. */
    ackIncarnation: string
    ackVersion: number
    /** Please answer with your state even if nothing changed. */
    wantsReply: boolean
    draining: boolean
    /** An orderly stop; it means to come back. */
    leaving: boolean
    /** Of the donated space. */
    freeBytes: number
    labels: Record<string, string>
    /** Those the sender believes the receiver has to do with; an absent one says nothing, one with empty bitfields that it holds none of it. */
    models: ModelClaim[]
    /** Absent: this is all of it. Else which part, from 0, of how many; each names other models, also one that names none. */
    part?: { number: number, of: number }
  }
  /** When did you last hear of this peer? Asked of others before a silent peer is called down. Answered by who watches it. */
  | { type: 'ask', peer: string }
  | { type: 'seen', peer: string, ageMs: number }
  | { type: 'offer', id: string, model: string, shard: number, shards: number, bytes: number, urgent: boolean, policies: Uint8Array[], holders: string[] }
  | { type: 'accept', id: string, model: string, shard: number }
  | { type: 'decline', id: string, model: string, shard: number, reason: DeclineReason }
  /** What was accepted is here, verified and durable. */
  | { type: 'commit', model: string, shard: number }
  /** What was accepted will not come: the coordinator can ask somebody else. */
  | { type: 'abandon', model: string, shard: number }
  | { type: 'challenge', id: string, model: string, shards: number[], nonce: Uint8Array }
  /** One digest per shard of the challenge, in its order; empty for a shard that is not here. */
  | { type: 'proof', id: string, model: string, digests: Uint8Array[] }
  /** Your answer for this shard was wrong: look at it. */
  | { type: 'disproved', model: string, shard: number }
  /** May I let go of my replica? Who answers yes keeps its own for KEEP_PROMISE_MS. */
  | { type: 'release', id: string, model: string, shard: number }
  | { type: 'keep', id: string, model: string, shard: number, ok: boolean }

export interface PullJob {
  model: string
  shard: number
  /** Peers that hold it, best first. */
  from: string[]
  /** Ignores the bandwidth cap. */
  urgent: boolean
}

/** What the replicator has done for it. Calls return at once; answers come back through the replicator's methods. */
export interface ReplicaPorts {
  /** Best effort. */
  send: (to: string, message: ReplicaMessage) => void
  /** When the last sign of life of this peer came (any message, an answered ping); undefined: never in this life. */
  heardAt: (peerId: string) => number | undefined
  /** Keep an eye on these peers and no others: `heardAt` stays fresh to a few seconds for them. */
  watch: (peerIds: ReadonlySet<string>) => void
  /** Peers that can be reached now, to ask for space. */
  reachable: () => string[]
  /** Looks for providers of the model; answered by found(). False: not now, as too many others are looked for. */
  find: (model: string) => boolean
  /** Brings a shard here, verified and durable; answered by pulled(). */
  pull: (job: PullJob) => void
  /** Ends a pull; not answered any more. */
  cancel: (model: string, shard: number) => void
  /**
   * BLAKE3-256 over the seed (challenge.ts) and the ranges it selects of each shard, from the disk; an empty digest where it cannot be
   * read. `done` may be called at once or later, or never when `asker` asks for too much; without one it is for this node itself.
   */
  prove: (model: string, shards: number[], seed: Uint8Array, done: (digests: Uint8Array[]) => void, asker?: string) => void
  /** Re-hash this shard now: somebody's challenge failed on it. Answered by lost() if something is bad. */
  scrub: (model: string, shard: number) => void
  /** All of these shards or none. Durable when it returns. Throws when that is not possible; nothing has changed then. */
  save: (change: { model: string, shards: readonly number[], committed: boolean }) => void
  /** All of it or nothing, as save(). What is dropped is not known any more. */
  savePolicies: (change: { saved: readonly PolicyRecord[], dropped: readonly PolicyRecord[] }) => void
  /** Checks a record's form and signature; undefined for a false one. Pure. */
  readPolicy: (bytes: Uint8Array) => PolicyRecord | undefined
  /** Space of the donation that is not committed or reserved is counted by the replicator; this is what the disk has. */
  diskFreeBytes: () => number
  /** For counters, traces and events; must not call back. */
  note: (event: ReplicationEvent) => void
}

export type ReplicationEvent =
  | { type: 'peer', peerId: string, from: Liveness, to: Liveness }
  | { type: 'brake', on: boolean }
  | { type: 'offered', model: string, shard: number, to: string, why: 'last-copy' | 'below-min' | 'below-target' | 'spread' | 'drain' }
  | { type: 'declined', model: string, shard: number, by: string, reason: DeclineReason }
  | { type: 'pulling' | 'committed' | 'abandoned' | 'released' | 'lost' | 'unpinned', model: string, shard: number, bytes: number }
  | { type: 'proof-asked' | 'proof-failed', peerId: string, model: string, shard: number }
  /** A shard came back to its target; `ms` since it fell below. */
  | { type: 'restored', model: string, shard: number, ms: number }

export type Liveness = 'alive' | 'suspect' | 'down'

/** What is on this node of a model when the replicator learns of it. */
export interface LocalModel {
  cid: string
  /** Bytes of each shard. */
  shardBytes: readonly number[]
  /** Shards that are here in full. */
  held: Iterable<number>
  /** This node keeps all of it whatever others do: published or pinned here. */
  kept: boolean
}

export interface HolderStatus {
  peerId: string
  /** `failed`: it says that it keeps it, and did not show it when it was asked, or showed something else. */
  state: 'proven' | 'claimed' | 'failed' | 'cached' | 'draining' | 'down'
  /** Milliseconds since the last proof; undefined when there is none. */
  provenAgoMs: number | undefined
  labels: Record<string, string>
}

export interface ShardStatus {
  shard: number
  bytes: number
  /** Live, proven, committed, not draining; this node included. */
  replicas: number
  holders: HolderStatus[]
  /** Somebody is fetching it to hold it. */
  repairing: boolean
}

export interface ModelReplication extends Policy {
  model: string
  /** Fewest replicas of any shard. */
  replicasMin: number
  shards: number
  /** Shards below target. */
  deficitShards: number
  deficitBytes: number
  /** Shards on their way to somebody. */
  repairing: number
  /** Of the oldest proof that counts, milliseconds; undefined when there is none. */
  oldestProofAgoMs: number | undefined
  /** Until all that is lacking is there, by what was measured; undefined when nothing is on its way, or before the first measurement. */
  secondsLeft: number | undefined
}

export interface DrainStatus {
  /** Shards this node holds that have fewer than target proven replicas elsewhere. */
  left: Array<{ model: string, shard: number, replicas: number, target: number }>
  bytesLeft: number
}

export interface ScrubStatus { bytesDone: number, bytesTotal: number, bad: number, lastCompletedAt: number | undefined, /** Milliseconds since 1970: several blocks went bad in one pass. */ suspectSince: number | undefined }

/** Since the node started. */
export interface ReplicationCounters {
  /** Bytes of shards fetched to be held here, and how many shards. */
  repairBytes: number
  repairs: number
  proofsAsked: number
  proofsFailed: number
  released: number
  messagesSent: number
  messageBytesSent: number
}

export interface ReplicationReport {
  models: ModelReplication[]
  /** Too many peers vanished at once: only last copies are repaired, nothing is trimmed. */
  brake: boolean
  /** The view has been stable since the start. */
  settled: boolean
  draining: boolean
  donateBytes: number
  /** Bytes of shards this node promised to keep, and of those on their way. */
  committedBytes: number
  pendingBytes: number
  /** Shards being fetched to be held here. */
  pulling: number
  /** Median milliseconds from falling below target to being back, of the last repairs; undefined before the first. */
  repairMs: number | undefined
  /** Probability that no shard of any pinned model is lost within a year, from the measured repair time; undefined before the first (docs/REPLICATION.md). */
  durability: number | undefined
  scrub: ScrubStatus
  counters: ReplicationCounters
}

export interface ReplicatorInit {
  self: string
  labels: Record<string, string>
  settings: ReplicationSettings
  random: Random
  ports: ReplicaPorts
  /** What save() kept in former lives. */
  commitments: Iterable<{ model: string, shard: number }>
  policies: Iterable<PolicyRecord>
  /** That was lost so many milliseconds ago, and is not rebuilt yet; undefined: it was not lost. */
  ledgerLostMs?: number | undefined
  /** How much one tick looks at (looks.ts). */
  looksMax?: number | undefined
}
