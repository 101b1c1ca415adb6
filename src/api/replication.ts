import { ModelNotFoundError } from '../base/index.ts'
import type { NodeStatus, ShoalNode } from '../node/types.ts'
import type { HolderStatus, ModelReplication, ShardStatus } from '../replication/types.ts'
import type { ShownHolder, ShownModelReplication, ShownShard, ShownStatus } from './types.ts'

/**
 * The node speaks of ages on its own clock; whoever reads an answer has only the calendar. `now` is milliseconds since
 * 1970, and so is every `...At` that comes out.
 */
export function shownStatus (status: NodeStatus, now: number): ShownStatus {
  const { models, ...rest } = status.replication
  return { ...status, replication: { models: models.map(model => shownModelReplication(model, now)), ...rest } }
}

export function shownModelReplication ({ model, oldestProofAgoMs, ...rest }: ModelReplication, now: number): ShownModelReplication {
  return { cid: model, ...rest, oldestProofAt: at(oldestProofAgoMs, now) }
}

export function shownShard ({ shard, holders, ...rest }: ShardStatus, now: number): ShownShard {
  return { id: shard, ...rest, holders: holders.map(holder => shownHolder(holder, now)) }
}

function shownHolder ({ peerId, state, provenAgoMs, labels }: HolderStatus, now: number): ShownHolder {
  return { peerId, state, provenAt: at(provenAgoMs, now) ?? null, labels }
}

function at (agoMs: number | undefined, now: number): number | undefined {
  return agoMs === undefined ? undefined : Math.round(now - agoMs)
}

/** A model may be held here while nobody has said anything about its shards. */
export function knownShards (node: ShoalNode, cid: string): ShardStatus[] {
  try {
    return node.shards(cid)
  } catch (error) {
    if (error instanceof ModelNotFoundError) return []
    throw error
  }
}
