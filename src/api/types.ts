/**
 * What travels between the daemon and its clients beyond the node's own types. Types only: the loader imports this
 * and must start in milliseconds.
 */
import type { ErrorJson } from '../base/errors.ts'
import type {
  AddProgress, AddResult, DrainProgress, DrainResult, LoadProgress, LoadResult, ModelDetails, NodeStatus, OpenFile, ReplicationProgress, ReplicationStatus, Verification
} from '../node/types.ts'
import type { Tensor } from '../model/types.ts'
import type { HolderStatus, ModelReplication, ShardStatus } from '../replication/types.ts'
import type { VerifyProgress } from '../storage/store.ts'

/** The last line of a stream that failed. */
export interface ErrorMessage { type: 'error', error: ErrorJson }

export type AddMessage = { type: 'progress', progress: AddProgress } | { type: 'done', result: AddResult }

/**
 * A load tells its files once, as soon as they are known, then how it goes, then its end. `path` is the directory of the
 * complete files; it fills as files complete. Files in place and nodes in memory have none.
 */
export type OpenMessage =
  { type: 'files', files: OpenFile[], path?: string } |
  { type: 'progress', progress: LoadProgress } |
  { type: 'done', result: LoadResult }

export type VerifyMessage = { type: 'progress', progress: VerifyProgress } | { type: 'done', result: Verification }

export type ReplicatedMessage = { type: 'progress', progress: ReplicationProgress } | { type: 'done', result: ReplicatedResult }

export type DrainMessage = { type: 'progress', progress: DrainProgress } | { type: 'done', result: DrainResult }

export interface ShownHolder extends Omit<HolderStatus, 'provenAgoMs'> {
  /** Milliseconds since 1970; null when it was never proven. */
  provenAt: number | null
}

export interface ShownShard extends Omit<ShardStatus, 'shard' | 'holders'> {
  /** Its number: the shards of the model's distinct files, in manifest order. */
  id: number
  holders: ShownHolder[]
}

export interface ShownModelReplication extends Omit<ModelReplication, 'model' | 'oldestProofAgoMs'> {
  cid: string
  /** Of the oldest proof that counts, milliseconds since 1970. */
  oldestProofAt: number | undefined
}

export interface ShownReplication extends Omit<ReplicationStatus, 'models'> {
  models: ShownModelReplication[]
}

export interface ShownStatus extends Omit<NodeStatus, 'replication'> {
  replication: ShownReplication
}

/** A model's details; the tensors themselves only when they were asked for, their number always. */
export interface ShownModel extends Omit<ModelDetails, 'fileList' | 'shards'> {
  fileList: Array<Omit<ModelDetails['fileList'][number], 'tensors'> & { tensors?: Tensor[] }>
  shardCount: number
  /** What is known of each shard's replicas, this node's included. */
  shards: ShownShard[]
  /** Undefined when the swarm keeps nothing for it. */
  replication?: ShownModelReplication | undefined
}

export interface PinResult {
  cid: string
  pinned: boolean
  /** The new target, when one was given. */
  replicas?: number | undefined
}
export interface ReplicatedResult {
  cid: string
  /** How long that took. */
  seconds: number
}
export interface WaitRange { path: string, offset: number, length: number }
/** `pid`: the process that ends within five seconds. */
export interface ShutdownResult { status: 'stopping', pid: number }
