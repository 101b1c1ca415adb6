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
  const shards: Shard[] = []
  const hasher = createBlockHasher()
  let first = 0
  let bytes = 0
  const close = (end: number): void => {
    hasher.update(DOMAIN)
    // One call into native code per shard, not per block.
    hasher.update(Buffer.concat(index.blocks.slice(first, end).map(cid => cid.multihash.bytes)))
    shards.push({ cid: blockCid(hasher.digest()), first, count: end - first, bytes })
  }
  for (const [i, size] of index.sizes.entries()) {
    if (i > first && bytes + size > SHARD_BYTES_MAX) {
      close(i)
      first = i
      bytes = 0
    }
    bytes += size
  }
  if (index.blocks.length > first) close(index.blocks.length)
  return shards
}
