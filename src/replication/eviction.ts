import { FAILED_MAX, Own, type ModelView } from './model-view.ts'
import { isProven, rankOf, type Scene } from './planner.ts'

/** What of a model may make room for something else, by what is known of the others. */

/** One order for all shards of a model: a model goes whole, and in as many orders as it has shards everybody would be the first somewhere. */
const ANY_SHARD = 0

/** It may not be evicted: something of it is promised, on its way, or the last copy known of what somebody wants. */
export function keepsModel (view: ModelView, scene: Scene): boolean {
  if (view.hasAny(Own.Committed, Own.Pulling, Own.Broken)) return true
  return view.policy.target > 0 && view.hasAny(Own.Held) && view.own.some((own, shard) => own === Own.Held && !othersHave(view, shard, scene))
}

/** It is promised to nobody, and not the last copy known of what somebody wants. */
export function isSpare (view: ModelView, shard: number, { peers, settings, now }: Scene): boolean {
  if (view.kept || (view.own[shard] !== Own.Held && view.own[shard] !== Own.None)) return false
  return view.policy.target === 0 || [...view.claims].some(([id, claim]) => peers.get(id)?.liveness === 'alive' && isProven(claim, shard, settings.proofTtlMs, now) && claim.committed.has(shard))
}

/**
 * Claimed is enough: what is cached here was fetched from somebody. Of those that are heard: who is silent may be gone, and eviction is for good.
 * A promise counts, unless who gave it failed to show that it has it, or showed something else; what is only cached counts where its holder
 * comes before this node in an order that all see alike, so of those who have it the first never counts on the others, and no two count on each other.
 */
export function othersHave (view: ModelView, shard: number, { self, peers }: Scene): boolean {
  for (const [id, claim] of view.claims) {
    const peer = peers.get(id)
    if (peer === undefined || peer.liveness !== 'alive' || peer.leaving) continue
    const hasFailed = (claim.failed[shard] ?? 0) >= FAILED_MAX
    if (claim.committed.has(shard) && !hasFailed) return true
    // What it said in an earlier life may be gone, what it has goes with who drains, and who has heard nothing of this node may not know that it is wanted.
    const stays = !peer.draining && claim.doubtedAt === undefined && peer.ackVersion > 0
    if (stays && claim.cached.has(shard) && rankOf(view, ANY_SHARD, self, [peer]) > 0) return true
  }
  return false
}
