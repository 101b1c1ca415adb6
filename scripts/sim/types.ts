import type { Policy, PolicyRecord } from '../../src/replication/types.ts'

export const SECOND = 1_000
export const MINUTE = 60 * SECOND
export const HOUR = 60 * MINUTE
/** Of a seed one: from what a short simulation sees many times to what it never does, and rot is left to the proofs. */
export const SCRUB_PERIODS_MS = [30 * MINUTE, HOUR, 3 * HOUR, 24 * HOUR, 7 * 24 * HOUR] as const

/** What a seed draws from. */
export const FAULTS = [
  'crash', 'disk-loss', 'loss', 'slow', 'hang', 'partition', 'one-way', 'message-loss', 'reorder', 'replay', 'full-disk',
  'rot', 'liar', 'skew', 'join', 'leave', 'domain-loss', 'drain', 'pin', 'reboot',
  'forget', 'publishers', 'bad-volume', 'cache-pressure', 'ledger-loss'
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
  /** The first of its publishers. */
  publisher: number
  /** The newest of each publisher, by its name. */
  records: Map<string, PolicyRecord>
  /** What all of them together ask for, and what that was before: it takes a while until everybody knows. */
  policy: Policy
  before: Policy
  changedAt: number
  /** Of the first publication. */
  at: number
}

/** Why a node could not know, or help it; see bytes.ts. */
export const EXCUSES = ['cut', 'liar', 'message-loss', 'slow', 'full-disk'] as const
export type Excuse = typeof EXCUSES[number]

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
  /** What mended copies that a user keeps. */
  bytesOwn: number
  /** Of moved: for nothing, and nobody who sees what the node in question can see would have known it; by cause. */
  bytesExcused: Record<Excuse, number>
  /** Of moved: for nothing. */
  bytesWasted: number
  replicas: number
  surplus: number
  messages: number
  ticks: number
  /** How often all was looked at because no fault had been at work for long enough, before the end. */
  rests: number
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
