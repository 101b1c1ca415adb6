import type { ModelView } from './model-view.ts'
import { isSilent, type Need, type Scene, type ShardLook } from './planner.ts'

/**
 * Whom others hear counts, for a cut is no death; but their word costs nothing, and one who goes on giving it would keep the dead among the replicas for
 * as long as their last proofs count. So where this node hears nobody else who has the shard, it believes the others for no longer than two copies are
 * waited for, and then makes sure of one companion that it can hear. `need`: what is to be done about it anyway.
 */
export function companionOf (need: Need | undefined, { view, seen, offered }: { view: ModelView, seen: ShardLook, offered: number }, scene: Scene): Need | undefined {
  const { settings, settled, draining, now } = scene
  if (view.policy.target < 2 || !settled || draining || !seen.own) return need
  const holders = [...seen.proven, ...seen.claimed]
  const silent = holders.filter(peer => isSilent(peer, 0, now))
  if (silent.length === 0 || silent.length < holders.length) return need
  // Who fetches it and is heard is on its way to be that companion.
  const coming = seen.pending.filter(peer => !isSilent(peer, 0, now)).length + offered
  const dueAt = Math.max(...silent.map(peer => peer.heardAt)) + settings.graceTwoCopiesMs
  if (coming > 0 || (need !== undefined && need.dueAt <= dueAt)) return need
  return { why: 'last-copy', wanted: 1, dueAt }
}
