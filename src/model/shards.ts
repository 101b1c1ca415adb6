import { SHARD_BYTES_MAX } from '../base/index.ts'
import { blockCid, createBlockHasher } from './block.ts'
import type { FileIndex, Shard } from './types.ts'

/** Keeps a shard's name apart from that of any block. */
const DOMAIN = Buffer.from('shoal-shard-1\0')

/**
 * The shards of a file: runs of consecutive blocks, each as long as SHARD_BYTES_MAX allows. A shard is named by what it
 * holds (BLAKE3-256 over a prefix and its blocks' multihashes), so that equal runs of blocks in different files are the
 * same shard.
 */
export function shardsOf (index: FileIndex): Shard[] {
  const hasher = createBlockHasher()
  return shardRuns(index).map(run => {
    hasher.update(DOMAIN)
    // One call into native code per shard, not per block.
    hasher.update(Buffer.concat(Array.from({ length: run.count }, (_, i) => index.blocks.at(run.first + i)?.multihash.bytes ?? new Uint8Array())))
    return { cid: blockCid(hasher.digest()), ...run }
  })
}

/** The same without their names, which take most of the time. */
export function shardRuns (index: FileIndex): Array<Omit<Shard, 'cid'>> {
  const runs: Array<Omit<Shard, 'cid'>> = []
  let first = 0
  let bytes = 0
  for (const [i, size] of index.sizes.entries()) {
    if (i > first && bytes + size > SHARD_BYTES_MAX) {
      runs.push({ first, count: i - first, bytes })
      first = i
      bytes = 0
    }
    bytes += size
  }
  if (index.blocks.length > first) runs.push({ first, count: index.blocks.length - first, bytes })
  return runs
}
