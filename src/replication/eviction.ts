import { Own, type ModelView } from './model-view.ts'
import { isProven, type Scene } from './planner.ts'

/** What of a model may make room for something else, by what is known of the others. */

/** It may not be evicted: something of it is promised, on its way, or the last copy known of what somebody wants. */
export function keepsModel (view: ModelView, scene: Scene): boolean {
  if (view.own.some(own => own >= Own.Pulling)) return true
  return view.policy.target > 0 && view.own.some((own, shard) => own === Own.Held && !othersHave(view, shard, scene))
}

/** It is promised to nobody, and not the last copy known of what somebody wants. */
export function isSpare (view: ModelView, shard: number, { peers, settings, now }: Scene): boolean {
  if (view.kept || (view.own[shard] !== Own.Held && view.own[shard] !== Own.None)) return false
  return view.policy.target === 0 || [...view.claims].some(([id, claim]) => peers.get(id)?.liveness === 'alive' && isProven(claim, shard, settings.proofTtlMs, now) && claim.committed.has(shard))
}

/** Claimed is enough: what is cached here was fetched from somebody. */
function othersHave (view: ModelView, shard: number, { peers }: Scene): boolean {
  for (const [id, claim] of view.claims) {
    const peer = peers.get(id)
    if (peer !== undefined && peer.liveness !== 'down' && !peer.leaving && (claim.committed.has(shard) || claim.cached.has(shard))) return true
  }
  return false
}
