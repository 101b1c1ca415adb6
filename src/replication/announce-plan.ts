import type { CID } from 'multiformats/cid'
import type { Bitfield } from '../base/index.ts'
import type { FileIndex, Shard } from '../model/types.ts'

/** `adaptive`: blocks too, unless enough others hold the whole model; `shards`: never blocks; `all`: always everything. */
export type AnnounceMode = 'adaptive' | 'all' | 'shards'

/**
 * With this many other full holders known, a node's block records add nothing to what its model and shard records
 * say: 16 holders already survive the loss of any few of them (docs/decisions/0004-discovery.md).
 */
export const FULL_HOLDERS_ENOUGH = 16

export interface HeldFile {
  index: FileIndex
  present: Bitfield
  /** Asked for when they are needed: each name is a hash. */
  shards: () => readonly Shard[]
}

/** The keys a node announces for one file beyond its model's: its complete shards, and its blocks unless others say enough. */
export function fileAnnouncements (file: HeldFile, mode: AnnounceMode, otherFullHolders: number): CID[] {
  const keys: CID[] = []
  const withBlocks = mode === 'all' || (mode === 'adaptive' && otherFullHolders < FULL_HOLDERS_ENOUGH)
  // Of a small file its one block says as much, and a model of small files has thousands.
  const blockSaysAll = withBlocks && mode === 'adaptive' && file.index.blocks.length === 1
  if (!blockSaysAll) for (const shard of file.shards()) if (holdsAll(file.present, shard)) keys.push(shard.cid)
  if (withBlocks) {
    for (const block of file.present) {
      const cid = file.index.blocks.at(block)
      if (cid !== undefined) keys.push(cid)
    }
  }
  return keys
}

/** Every key that was ever announced for a file: what to withdraw when it goes. */
export function fileKeys (index: FileIndex, shards: readonly Shard[]): CID[] {
  return [...shards.map(shard => shard.cid), ...index.blocks]
}

function holdsAll (present: Bitfield, shard: Shard): boolean {
  if (present.full) return true
  for (let block = shard.first; block < shard.first + shard.count; block++) if (!present.has(block)) return false
  return true
}
