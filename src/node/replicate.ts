import { MiB, REPLICAS_MAX, DiskError, UsageError, asError, sleep, throwIfAborted, type AbortOptions, type Clock, type ProgressOptions } from '../base/index.ts'
import { isComplete, missingBytes, type PlacedShard, type ShardsByModel } from '../replication/model-shards.ts'
import { PACE_BYTES } from '../replication/pace.ts'
import type { PullContext } from '../replication/pulls.ts'
import type { Replication } from '../replication/service.ts'
import type { Policy, PullJob, ShardStatus } from '../replication/types.ts'
import type { ModelStore } from '../storage/store.ts'
import type { Loads } from './load.ts'
import type { DrainOptions, DrainResult, NodeSettings, OpenModel, ReplicationProgress } from './types.ts'

/** Surplus that is let be when a user says how many replicas there shall be: as much as `max` is above `target` by default. */
const SURPLUS = 2
/** Ranges asked for ahead, so that a fetch never runs dry between two. */
const RANGES_AHEAD = 2
/** Where nothing paces it: a range is synced as soon as it is whole, which the store would do after so many bytes anyway, and a reader of the same model waits behind no more. */
const URGENT_BYTES = 64 * MiB
/** How often a long wait looks. */
const LOOK_MS = 250

/** What is told to the swarm of a model with so many replicas; undefined when it is to have none. Throws UsageError. */
export function policyFor (replicas: number | undefined, { min, target, max }: NodeSettings['replication']): Policy | undefined {
  const wanted = replicas ?? target
  if (!Number.isSafeInteger(wanted) || wanted < 0 || wanted > REPLICAS_MAX) throw new UsageError(`a model can have 0 to ${REPLICAS_MAX} replicas, not ${wanted}`)
  if (wanted === 0) return undefined
  const most = replicas === undefined ? max : Math.min(REPLICAS_MAX, Math.max(max, wanted + SURPLUS))
  return { min: Math.min(min, wanted), target: wanted, max: most }
}

/**
 * Fetches one shard and nothing else of its model, together with whoever loads the same one. Resolves when it is recorded,
 * with the bytes that were lacking before.
 */
export async function pullShard ({ loads, store, shards }: { loads: Loads, store: ModelStore, shards: ShardsByModel }, job: PullJob, { signal, pace }: PullContext): Promise<number> {
  const model = await loads.open(job.model, { rangesOnly: true, from: job.from, signal })
  try {
    const stored = store.model(model.cid)
    const shard = stored === undefined ? undefined : shards.of(stored).all[job.shard]
    if (stored === undefined || shard === undefined) throw new UsageError(`${job.model} has no shard ${job.shard}`)
    const path = stored.manifest.value.files[shard.position]?.path ?? ''
    const lacking = missingBytes(shard)
    if (lacking === 0) return 0
    const letGo = await store.holdRoom(shard, `shard ${job.shard} of ${job.model}`)
    try {
      await store.reusePart(shard, { signal })
      await fetchRanges(model, { path, shard, pace, signal, step: job.urgent ? URGENT_BYTES : PACE_BYTES })
    } finally {
      letGo()
    }
    if (!isComplete(shard)) throw new DiskError(`shard ${job.shard} of ${job.model} was lost as soon as it was here; look at the volume with: shoal verify`)
    return lacking
  } finally {
    model.close()
  }
}

/** `step`: bytes asked for at a time. */
async function fetchRanges (model: OpenModel, { path, shard, pace, signal, step }: { path: string, shard: PlacedShard, pace: PullContext['pace'], signal: AbortSignal, step: number }): Promise<void> {
  const failed = new AbortController()
  const either = AbortSignal.any([signal, failed.signal])
  const open = new Set<Promise<void>>()
  const end = shard.offset + shard.bytes
  try {
    for (let at = shard.offset; at < end; at += step) {
      const length = Math.min(step, end - at)
      await pace(length)
      const range: Promise<void> = model.waitFor(path, at, length, { signal: either }).finally(() => { open.delete(range) })
      range.catch(() => undefined) // awaited below, with the others
      open.add(range)
      if (open.size >= RANGES_AHEAD) await Promise.race(open)
    }
    await Promise.all(open)
  } catch (error) {
    failed.abort(asError(error))
    await Promise.allSettled(open)
    throw error
  }
}

interface Watched {
  clock: Clock
  policy: () => Policy | undefined
  shards: () => ShardStatus[]
}

/** Resolves when every shard has its target of proven replicas. */
export async function untilReplicated ({ clock, policy, shards }: Watched, { signal, onProgress }: AbortOptions & ProgressOptions<ReplicationProgress>): Promise<void> {
  for (;;) {
    throwIfAborted(signal)
    const target = policy()?.target ?? 0
    const all = shards()
    const done = all.filter(({ replicas }) => replicas >= target)
    const progress: ReplicationProgress = {
      shards: all.length,
      shardsDone: done.length,
      bytesDone: sum(done),
      bytesTotal: sum(all),
      replicasMin: all.reduce((least, { replicas }) => Math.min(least, replicas), Infinity),
      target
    }
    if (all.length === 0) progress.replicasMin = target // nothing in it that could be lost
    onProgress?.(progress)
    if (done.length === all.length) return
    await sleep(clock, LOOK_MS, signal)
  }
}

/** Has the replicator hand over what this node promised, and waits for it. An abort ends the waiting; the node stays drained. */
export async function drainAll ({ replication, clock }: { replication: Replication, clock: Clock }, { deadlineMs, signal, onProgress }: DrainOptions): Promise<DrainResult> {
  const startedAt = clock.monotonic()
  replication.drain(deadlineMs)
  let shards = 0
  let bytesTotal = 0
  for (;;) {
    throwIfAborted(signal)
    const { left, bytesLeft } = replication.drainStatus()
    // What is left may grow at first: others come to know of what is here.
    shards = Math.max(shards, left.length)
    bytesTotal = Math.max(bytesTotal, bytesLeft)
    onProgress?.({ shards, shardsDone: shards - left.length, bytesDone: bytesTotal - bytesLeft, bytesTotal })
    const elapsedMs = clock.monotonic() - startedAt
    if (left.length === 0 || (deadlineMs !== undefined && elapsedMs >= deadlineMs)) return { complete: left.length === 0, seconds: elapsedMs / 1000, left }
    await sleep(clock, Math.min(LOOK_MS, Math.max(1, (deadlineMs ?? Infinity) - elapsedMs)), signal)
  }
}

function sum (shards: readonly ShardStatus[]): number {
  return shards.reduce((total, { bytes }) => total + bytes, 0)
}
