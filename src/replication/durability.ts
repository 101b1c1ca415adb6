/** What is assumed of hosts: one in this time is lost for good, on average. Disks fail at 1 to 2 % a year, whole hosts and their owners more often. */
export const HOST_LOSS_MS = 365 * 24 * 3_600_000
const YEAR_MS = 365 * 24 * 3_600_000

export interface DurabilityInit {
  models: Iterable<{ target: number, shards: number }>
  /** From falling below target to being back at it, milliseconds: found, waited for, fetched and proven. */
  repairMs: number
  hostLossMs?: number
}

/**
 * The probability that no shard of these models is lost within a year.
 *
 * Each shard is a birth-death chain over its replicas: with k of n left, one is lost at the rate k / hostLossMs and
 * one comes back at the rate 1 / repairMs. The mean time from k to k - 1 is
 * h(n) = 1 / (n a) and h(k) = 1 / (k a) + b / (k a) * h(k + 1), with a = 1 / hostLossMs and b = 1 / repairMs;
 * the mean time to loss is the sum of all h, and losses of many shards come as a Poisson process, so
 * P = exp(-year * sum over shards of 1 / (mean time to loss)).
 *
 * Its limits: hosts fail independently (a fire, a bug or an operator takes several at once; spreading over domains is
 * against that, this figure does not see it), repair finds space and a correct source, and shards fail one by one
 * although they share hosts (which errs to the safe side). It compares settings; it promises nothing.
 */
export function durability ({ models, repairMs, hostLossMs = HOST_LOSS_MS }: DurabilityInit): number {
  let lossesPerMs = 0
  for (const { target, shards } of models) {
    if (target > 0) lossesPerMs += shards / meanTimeToLossMs(target, repairMs, hostLossMs)
  }
  return Math.exp(-YEAR_MS * lossesPerMs)
}

export function meanTimeToLossMs (replicas: number, repairMs: number, hostLossMs: number): number {
  let step = 0
  let sum = 0
  for (let left = replicas; left >= 1; left--) {
    const untilLossMs = hostLossMs / left
    step = left === replicas ? untilLossMs : untilLossMs + untilLossMs / Math.max(1, repairMs) * step
    sum += step
  }
  return sum
}
