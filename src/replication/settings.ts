import { MiB } from '../base/index.ts'
import type { ReplicationSettings } from './types.ts'

const SECOND_MS = 1_000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS

/** docs/REPLICATION.md says of each figure what it is for; config/default.jsonc explains them to operators. */
export const defaultReplication: Omit<ReplicationSettings, 'donateBytes'> = {
  min: 2,
  target: 3,
  max: 5,
  graceLastCopyMs: 0,
  graceTwoCopiesMs: 60 * SECOND_MS,
  graceDefaultMs: 10 * MINUTE_MS,
  settleMs: MINUTE_MS,
  proofTtlMs: HOUR_MS,
  suspectMs: 15 * SECOND_MS,
  downMs: 20 * SECOND_MS,
  rankDelayMs: 30 * SECOND_MS,
  brakeShare: 0.25,
  brakeWindowMs: 2 * MINUTE_MS,
  brakeMaxMs: 10 * MINUTE_MS,
  trimEveryMs: HOUR_MS,
  trimProofMs: 10 * MINUTE_MS,
  // Long enough for those who have too many to let go again (30 s to some minutes each), short beside the day a bad machine may go unseen.
  disputedEveryMs: 10 * MINUTE_MS,
  repairBytesPerSecond: 128 * MiB,
  pullsMax: 4,
  offersMax: 8,
  // Early enough that room is left for repairs, and 256 MiB a minute at most: a few per cent of what repair may take.
  rebalanceShare: 0.85,
  rebalanceEveryMs: MINUTE_MS,
  scrubPeriodMs: 7 * 24 * HOUR_MS,
  // A sound drive may have one unreadable place in 12 TB read (10^-14 a bit, what makers give for desktop drives): eight in a
  // pass over 16 TB come by chance once in several hundred years.
  scrubSuspectBlocks: 8
}
