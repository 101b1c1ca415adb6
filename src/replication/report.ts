import { REPLICA_LOOKS_MAX } from '../base/index.ts'
import { othersHave } from './eviction.ts'
import { graceEnd, isProven, look, tellsState, type Scene, type ShardLook } from './planner.ts'
import { FAILED_MAX, Own, type ModelView } from './model-view.ts'
import { secondsLeft, type RepairWork } from './repair-pace.ts'
import type { DrainStatus, HolderStatus, ModelReplication, ShardStatus } from './types.ts'

/** A look at a shard costs so much more than one at a claim to it. */
const SHARD_COST = 8
/** What models() takes another look at, of what is not quite new; counted as in looks.ts. */
const COUNTS_MAX = 2 * REPLICA_LOOKS_MAX

/** What there is of the shards of a model, and what is lacking, as of a look at each of them. */
export class ShardCount {
  replicasMin = Infinity
  deficitShards = 0
  deficitBytes = 0
  repairing = 0
  /** When the oldest proof that counts was given; Infinity: there is none. */
  oldestProofAt = Infinity
  waitingBytes = 0
  /** When the last of that may begin, because its holders may come back. */
  waitUntil = -Infinity
  /** Replicas of that of which there are the fewest, of what this node has to see to. */
  fewest = Infinity

  add (view: ModelView, shard: number, seen: ShardLook, scene: Scene): void {
    const { pending, proven, claimed, replicas: counted } = seen
    const { policy: { target } } = view
    const bytes = view.bytes[shard] ?? 0
    const own = view.own[shard]
    const isComing = own === Own.Pulling || own === Own.Broken
    const replicas = counted + unprovable(view, shard, claimed.length)
    this.replicasMin = Math.min(this.replicasMin, replicas)
    if (replicas < target) {
      this.deficitShards++
      this.deficitBytes += (target - replicas) * bytes
    }
    if (pending.length > 0 || isComing) this.repairing++
    for (const { id } of proven) this.oldestProofAt = Math.min(this.oldestProofAt, view.claims.get(id)?.provenAt[shard] ?? Infinity)
    // Those that came a moment ago and have yet to prove it are no more work.
    const waiting = target - counted - claimed.length - pending.length - (isComing ? 1 : 0)
    if (waiting <= 0) return
    this.waitingBytes += waiting * bytes
    this.waitUntil = Math.max(this.waitUntil, graceEnd(seen, view, view.states[shard], scene))
  }
}

/**
 * Of each model that is to have replicas. Where a look at all of them would take too long it is of those that have changed or lack something, as far as
 * that goes, and of the others what the last look found; of which there was none yet nothing is told. `bytesLeft`: what is lacking of a shard on its way here.
 */
export function modelStatuses (views: Iterable<ModelView>, scene: Scene, bytesLeft: (view: ModelView, shard: number) => number | undefined): ModelReplication[] {
  const wanted = [...views].filter(view => view.policy.target > 0 && !view.isForeign)
  const isSure = ({ count, lookAt, lookedTo }: ModelView): boolean => count !== undefined && lookAt > scene.now && lookedTo === 0 && count.deficitShards + count.repairing === 0
  let left = COUNTS_MAX
  for (const sure of [false, true]) {
    for (const view of wanted) {
      if (isSure(view) !== sure) continue
      left -= view.shards * weightOf(view)
      if (left < 0) break
      const count = new ShardCount()
      for (let shard = 0; shard < view.shards; shard++) count.add(view, shard, look(view, shard, scene), scene)
      view.count = count
    }
  }
  return wanted.flatMap(view => view.count === undefined ? [] : [modelStatus(view, view.count, { scene, bytesLeft })])
}

/** What a look at one shard of it costs, where one at a claim to it costs 1. */
export function weightOf ({ claims }: ModelView): number { return SHARD_COST + claims.size }

function modelStatus (view: ModelView, count: ShardCount, { scene, bytesLeft }: { scene: Scene, bytesLeft: (view: ModelView, shard: number) => number | undefined }): ModelReplication {
  const { now, peers } = scene
  const { replicasMin, deficitShards, deficitBytes, repairing, oldestProofAt, waitingBytes, waitUntil } = count
  const work: RepairWork = { here: undefined, elsewhere: [], waitingBytes, waitMs: Math.max(0, waitUntil - now) }
  if (view.hasAny(Own.Pulling, Own.Broken)) {
    for (let shard = 0; shard < view.shards; shard++) {
      const left = view.own[shard] === Own.Pulling || view.own[shard] === Own.Broken ? bytesLeft(view, shard) : undefined
      if (left !== undefined) work.here = (work.here ?? 0) + left
    }
  }
  for (const [id, { pending, fetchingSince }] of view.claims) {
    if (fetchingSince === undefined) continue
    const peer = peers.get(id)
    if (peer === undefined || peer.liveness === 'down' || peer.draining || peer.leaving || !tellsState(peer, now)) continue
    work.elsewhere.push({ bytes: [...pending].reduce((sum, shard) => sum + (view.bytes[shard] ?? 0), 0), ms: now - fetchingSince })
  }
  return {
    model: view.cid,
    ...view.policy,
    replicasMin: view.shards === 0 ? view.policy.target : replicasMin,
    shards: view.shards,
    deficitShards,
    deficitBytes,
    repairing,
    oldestProofAgoMs: oldestProofAt === Infinity ? undefined : now - oldestProofAt,
    secondsLeft: secondsLeft(work, { here: view.paceHere.bytesPerMs(now), elsewhere: view.paceElsewhere.bytesPerMs(now) })
  }
}

/** Only who has the bytes can check a proof: of what is not here, the word of holders that are up has to do. */
function unprovable (view: ModelView, shard: number, claimed: number): number {
  const own = view.own[shard]
  return own === Own.Committed || own === Own.Held ? 0 : claimed
}

/** Bytes of what is in one of these states here. */
export function sumOf (views: Iterable<ModelView>, ...states: Own[]): number {
  let sum = 0
  for (const view of views) sum += view.bytesOf(...states)
  return sum
}

export function holdersOf (view: ModelView, shard: number, scene: Scene): ShardStatus {
  const { self, draining, peers, settings, now } = scene
  const seen = look(view, shard, scene)
  const holders: HolderStatus[] = []
  const own = view.own[shard]
  if (own === Own.Committed) holders.push({ peerId: self.id, state: draining ? 'draining' : 'proven', provenAgoMs: 0, labels: self.labels })
  else if (own === Own.Held) holders.push({ peerId: self.id, state: 'cached', provenAgoMs: undefined, labels: self.labels })
  for (const [peerId, claim] of view.claims) {
    const peer = peers.get(peerId)
    if (peer === undefined) continue
    const committed = claim.committed.has(shard)
    if (!committed && !claim.cached.has(shard)) continue
    const provenAt = claim.provenAt[shard] ?? -Infinity
    const state = peer.liveness === 'down' || peer.leaving
      ? 'down'
      : !committed ? 'cached' : peer.draining ? 'draining' : isProven(claim, shard, settings.proofTtlMs, now) ? 'proven' : (claim.failed[shard] ?? 0) >= FAILED_MAX ? 'failed' : 'claimed'
    holders.push({ peerId, state, provenAgoMs: provenAt === -Infinity ? undefined : Math.max(0, now - provenAt), labels: peer.labels })
  }
  return { shard, bytes: view.bytes[shard] ?? 0, replicas: seen.replicas + unprovable(view, shard, seen.claimed.length), holders, repairing: seen.pending.length > 0 || own === Own.Pulling || own === Own.Broken }
}

/** What of what this node holds others do not have as often as is wanted, or, of what is only cached, nobody else; `isUnsure`: what was promised of it is not known. */
export function drainStatus (scene: Scene, views: Iterable<ModelView>, isUnsure: (view: ModelView) => boolean): DrainStatus {
  const status: DrainStatus = { left: [], bytesLeft: 0 }
  for (const view of views) {
    const unsure = isUnsure(view)
    if (view.policy.target === 0 && !unsure) continue
    for (let shard = 0; shard < view.shards; shard++) {
      const own = view.own[shard]
      if (own !== Own.Committed && own !== Own.Broken && !(own === Own.Held && (view.kept || unsure || !othersHave(view, shard, scene)))) continue
      const { proven } = look(view, shard, scene)
      // Given up, and nobody promised since: it counts as handed over while the others have it.
      if (own === Own.Held && !unsure && proven.length >= view.policy.target) continue
      status.left.push({ model: view.cid, shard, replicas: proven.length, target: view.policy.target })
      status.bytesLeft += view.bytes[shard] ?? 0
    }
  }
  return status
}
