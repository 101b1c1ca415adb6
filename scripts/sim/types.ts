import type { Policy, PolicyRecord } from '../../src/replication/types.ts'

export const SECOND = 1_000
export const MINUTE = 60 * SECOND
export const HOUR = 60 * MINUTE
/** Seven days would see little of a short simulation. */
export const SCRUB_PERIOD_MS = HOUR

export const FAULTS = [
  'crash', 'disk-loss', 'loss', 'slow', 'hang', 'partition', 'one-way', 'message-loss', 'reorder', 'replay', 'full-disk',
  'rot', 'liar', 'skew', 'join', 'leave', 'domain-loss', 'drain', 'pin', 'reboot'
] as const
export type FaultName = typeof FAULTS[number]

export interface SimOptions {
  seed: number
  nodes: number
  hours: number
  /** undefined: a random part of all, drawn from the seed. */
  faults: FaultName[] | undefined
  plant: string | undefined
}

export interface SimModel {
  index: number
  cid: string
  shardBytes: number[]
  publisher: number
  /** Newest record, and what was wanted before it: it takes a while until everybody knows. */
  record: PolicyRecord
  before: Policy
  changedAt: number
  /** Of the first publication. */
  at: number
}

/** One shard of one model, in all tables of the simulator. */
export type Key = number
export const SHARDS_MAX = 4_096
export function keyOf (model: number, shard: number): Key { return model * SHARDS_MAX + shard }
export function modelIndexOf (key: Key): number { return Math.floor(key / SHARDS_MAX) }
export function shardOf (key: Key): number { return key % SHARDS_MAX }

export interface Violation {
  invariant: string
  at: number
  text: string
  key?: Key
}

export interface SimStats {
  nodeHours: number
  /** Replicas made, initial placement included. */
  repairs: number
  bytesMoved: number
  /** Least possible: see checks.ts. */
  bytesNeeded: number
  /** Of moved: bytes that improve the spread over domains. */
  bytesSpread: number
  replicas: number
  surplus: number
  messages: number
  ticks: number
  /** Destructive faults that were left out because they would have taken the last correct copy. */
  spared: number
}

export interface SimResult {
  seed: number
  faults: FaultName[]
  violation: Violation | undefined
  stats: SimStats
  /** Over everything that happened. */
  hash: string
  /** Lines, when they were asked for. */
  trace: string[]
}
