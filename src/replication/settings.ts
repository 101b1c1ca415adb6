import { MiB } from '../base/index.ts'
import type { ReplicationSettings } from './types.ts'

const SECOND_MS = 1_000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS

/** DESIGN section 7, where each figure has its why; config/default.jsonc explains them to operators. */
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
  repairBytesPerSecond: 128 * MiB,
  pullsMax: 4,
  offersMax: 8,
  scrubPeriodMs: 7 * 24 * HOUR_MS
}
