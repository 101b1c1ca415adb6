import type { ShardStatus } from '../replication/types.ts'
import type { ModelDetails } from './types.ts'

/**
 * Who else has some of a model: what this node heard while loading or serving it, and what replication knows of each shard. The two
 * may know different peers, and more or less of the same one. Who is down is no holder.
 */
export function knownHolders (heard: ModelDetails['holders'], shards: readonly ShardStatus[], { self, bytes }: { self: string, bytes: number }): ModelDetails['holders'] {
  const byPeer = new Map<string, { shards: number, bytes: number }>()
  for (const shard of shards) {
    for (const { peerId, state } of shard.holders) {
      if (peerId === self || state === 'down') continue
      const before = byPeer.get(peerId) ?? { shards: 0, bytes: 0 }
      byPeer.set(peerId, { shards: before.shards + 1, bytes: before.bytes + shard.bytes })
    }
  }
  const known = new Map(heard.map(holder => [holder.peerId, holder]))
  for (const [peerId, has] of byPeer) {
    const complete = has.shards === shards.length
    const presentBytes = complete ? bytes : Math.min(has.bytes, bytes)
    const before = known.get(peerId)
    if (before === undefined || presentBytes > before.presentBytes) known.set(peerId, { peerId, presentBytes, complete: complete || before?.complete === true })
  }
  return [...known.values()]
}
