import { CID_BYTES, DIGEST_BYTES } from '../model/block.ts'
import type { CidList } from '../model/cid-list.ts'
import type { NewFile } from './catalog-rows.ts'

export interface AddedFile { file: NewFile, offsets: Float64Array }
/** The columns of a row. */
export type BlockValues = [hash: Uint8Array, file: number, block: number, offset: number, size: number]

/** Fewer blocks of a file are written as they come: they go together anyway. */
const ORDERED_MIN = 250

/** The rows of the blocks of files with ids from `firstId` on, file by file. */
export function * blockRows (files: AddedFile[], firstId: number): Generator<BlockValues> {
  for (const [at, { file: { index: { value: { blocks, sizes } } }, offsets }] of files.entries()) {
    for (const block of blocks.length > ORDERED_MIN ? orderOf(blocks) : offsets.keys()) {
      const hash = blocks.at(block)?.multihash.bytes
      if (hash !== undefined) yield [hash, firstId + at, block, offsets[block] ?? 0, sizes[block] ?? 0]
    }
  }
}

/** Blocks by the first two bytes of their digests: rows that are written together go to few pages, and not each to one of its own. */
function orderOf ({ bytes, length }: CidList): Uint32Array {
  const start = new Uint32Array(2 ** 16 + 1)
  const digestAt = CID_BYTES - DIGEST_BYTES
  const beginning = (block: number): number => ((bytes[block * CID_BYTES + digestAt] ?? 0) << 8) + (bytes[block * CID_BYTES + digestAt + 1] ?? 0)
  for (let block = 0; block < length; block++) start[beginning(block) + 1] = (start[beginning(block) + 1] ?? 0) + 1
  for (let at = 1; at < start.length; at++) start[at] = (start[at] ?? 0) + (start[at - 1] ?? 0)
  const order = new Uint32Array(length)
  for (let block = 0; block < length; block++) {
    const at = start[beginning(block)] ?? 0
    start[beginning(block)] = at + 1
    order[at] = block
  }
  return order
}
