import { othersHave } from './eviction.ts'
import { graceEnd, isProven, look, tellsState, type Scene, type ShardLook } from './planner.ts'
import { FAILED_MAX, Own, type ModelView } from './model-view.ts'
import { secondsLeft, type RepairWork } from './repair-pace.ts'
import type { DrainStatus, HolderStatus, ModelReplication, ShardStatus } from './types.ts'

/** `bytesLeft`: what is lacking of a shard on its way here; undefined when it is not. */
export function modelStatus (view: ModelView, scene: Scene, bytesLeft: (shard: number) => number | undefined): ModelReplication {
  const work: RepairWork = { here: undefined, elsewhere: [], waitingBytes: 0, waitMs: 0 }
  const status: ModelReplication = {
    model: view.cid, ...view.policy, replicasMin: view.shards === 0 ? view.policy.target : Infinity, shards: view.shards, deficitShards: 0, deficitBytes: 0, repairing: 0, oldestProofAgoMs: undefined, secondsLeft: undefined
  }
  for (let shard = 0; shard < view.shards; shard++) {
    const seen = look(view, shard, scene)
    const { pending, proven, claimed, replicas: counted } = seen
    const replicas = counted + unprovable(view, shard, claimed.length)
    status.replicasMin = Math.min(status.replicasMin, replicas)
    if (replicas < view.policy.target) {
      status.deficitShards++
      status.deficitBytes += (view.policy.target - replicas) * (view.bytes[shard] ?? 0)
    }
    if (pending.length > 0 || view.own[shard] === Own.Pulling || view.own[shard] === Own.Broken) status.repairing++
    addWork(work, view, shard, { seen, scene, left: bytesLeft(shard) })
    for (const { id } of proven) {
      const ago = scene.now - (view.claims.get(id)?.provenAt[shard] ?? scene.now)
      status.oldestProofAgoMs = Math.max(status.oldestProofAgoMs ?? 0, ago)
    }
  }
  for (const [id, { pending, fetchingSince }] of view.claims) {
    const peer = scene.peers.get(id)
    if (fetchingSince === undefined || peer === undefined || peer.liveness === 'down' || peer.draining || peer.leaving || !tellsState(peer, scene.now)) continue
    work.elsewhere.push({ bytes: [...pending].reduce((sum, shard) => sum + (view.bytes[shard] ?? 0), 0), ms: scene.now - fetchingSince })
  }
  status.secondsLeft = secondsLeft(work, { here: view.paceHere.bytesPerMs(scene.now), elsewhere: view.paceElsewhere.bytesPerMs(scene.now) })
  return status
}

/** Adds what a shard lacks: what is on its way here, and what nobody fetches yet. */
function addWork (work: RepairWork, view: ModelView, shard: number, { seen, scene, left }: { seen: ShardLook, scene: Scene, left: number | undefined }): void {
  const { now } = scene
  const bytes = view.bytes[shard] ?? 0
  if (left !== undefined) work.here = (work.here ?? 0) + left
  // Those that came a moment ago and have yet to prove it are no more work.
  const waiting = view.policy.target - seen.replicas - seen.claimed.length - seen.pending.length - (left === undefined ? 0 : 1)
  if (waiting <= 0) return
  work.waitingBytes += waiting * bytes
  work.waitMs = Math.max(work.waitMs, graceEnd(seen, view, view.states[shard], scene) - now)
}

/** Only who has the bytes can check a proof: of what is not here, the word of holders that are up has to do. */
function unprovable (view: ModelView, shard: number, claimed: number): number {
  const own = view.own[shard]
  return own === Own.Committed || own === Own.Held ? 0 : claimed
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
