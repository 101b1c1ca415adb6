import { isProven, look, type Scene } from './planner.ts'
import { Own, type ModelView } from './model-view.ts'
import type { HolderStatus, ModelReplication, ShardStatus } from './types.ts'

export function modelStatus (view: ModelView, scene: Scene): ModelReplication {
  const status: ModelReplication = {
    model: view.cid, ...view.policy, replicasMin: view.shards === 0 ? view.policy.target : Infinity, shards: view.shards, deficitShards: 0, deficitBytes: 0, repairing: 0, oldestProofAgoMs: undefined
  }
  for (let shard = 0; shard < view.shards; shard++) {
    const { pending, proven, claimed, replicas: counted } = look(view, shard, scene)
    const replicas = counted + unprovable(view, shard, claimed.length)
    status.replicasMin = Math.min(status.replicasMin, replicas)
    if (replicas < view.policy.target) {
      status.deficitShards++
      status.deficitBytes += (view.policy.target - replicas) * (view.bytes[shard] ?? 0)
    }
    if (pending.length > 0 || view.own[shard] === Own.Pulling || view.own[shard] === Own.Broken) status.repairing++
    for (const { id } of proven) {
      const ago = scene.now - (view.claims.get(id)?.provenAt[shard] ?? scene.now)
      status.oldestProofAgoMs = Math.max(status.oldestProofAgoMs ?? 0, ago)
    }
  }
  return status
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
      : !committed ? 'cached' : peer.draining ? 'draining' : isProven(claim, shard, settings.proofTtlMs, now) ? 'proven' : 'claimed'
    holders.push({ peerId, state, provenAgoMs: provenAt === -Infinity ? undefined : Math.max(0, now - provenAt), labels: peer.labels })
  }
  return { shard, bytes: view.bytes[shard] ?? 0, replicas: seen.replicas + unprovable(view, shard, seen.claimed.length), holders, repairing: seen.pending.length > 0 || own === Own.Pulling || own === Own.Broken }
}
