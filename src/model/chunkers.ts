import { BLOCK_BYTES_MAX, FILE_BLOCKS_MAX, FILE_INDEX_BYTES_MAX, InvalidSafetensorsError, LimitExceededError, TENSOR_OWN_BLOCK_BYTES } from '../base/index.ts'
import { printable } from './printable.ts'
import { readSafetensors } from './safetensors.ts'
import type { Chunker, ReadAt } from './types.ts'

/** A link and a size in a file index; and all the rest of it, generously. Too large a file is refused before it is hashed. */
const INDEX_ENTRY_BYTES = 46
const INDEX_REST_BYTES = 256
const BLOCKS_MAX = Math.min(FILE_BLOCKS_MAX, Math.floor((FILE_INDEX_BYTES_MAX - INDEX_REST_BYTES) / INDEX_ENTRY_BYTES))

/** A block every 4 MiB. */
const fixed: Chunker = async size => pieces(size)

/**
 * Cuts where tensors begin, so that a fine-tune that changes or adds some of them shares every untouched block with its
 * base: after the header; before and after each tensor of TENSOR_OWN_BLOCK_BYTES or more, which is cut every 4 MiB from
 * its own start; smaller neighbours share blocks of up to 4 MiB, and no tensor of them is cut. Throws
 * InvalidSafetensorsError for a file that is none.
 */
const safetensors: Chunker = async (size, readAt) => {
  const { headerBytes, tensors } = await readSafetensors(readAt, size)
  return tensorPieces(headerBytes, tensors.map(tensor => tensor.length))
}

function * tensorPieces (headerBytes: number, lengths: readonly number[]): Generator<number> {
  yield * pieces(headerBytes)
  let shared = 0
  for (const length of lengths) {
    const own = length >= TENSOR_OWN_BLOCK_BYTES
    if (shared > 0 && (own || shared + length > BLOCK_BYTES_MAX)) {
      yield shared
      shared = 0
    }
    if (own) yield * pieces(length)
    else shared += length
  }
  if (shared > 0) yield shared
}

function * pieces (length: number): Generator<number> {
  for (let left = length; left > 0; left -= BLOCK_BYTES_MAX) yield Math.min(left, BLOCK_BYTES_MAX)
}

/** By the name that a file index records. */
export const chunkers: Readonly<Record<string, Chunker>> = { fixed, safetensors }

/** The name of the chunker for a file of this path. */
export function chooseChunker (path: string): string {
  return path.toLowerCase().endsWith('.safetensors') ? 'safetensors' : 'fixed'
}

/**
 * Where to cut a file: the sizes of its blocks in order, and the name of the chunker that found them, which is `fixed`
 * for a file that does not hold what its name says. Throws LimitExceededError and whatever `readAt` throws.
 */
export async function planBlocks (path: string, size: number, readAt: ReadAt): Promise<{ chunker: string, sizes: number[] }> {
  const chosen = chooseChunker(path)
  const chunker = chunkers[chosen] ?? fixed
  try {
    return { chunker: chosen, sizes: take(await chunker(size, readAt), path) }
  } catch (error) {
    if (!(error instanceof InvalidSafetensorsError)) throw error
    return { chunker: 'fixed', sizes: take(await fixed(size, readAt), path) }
  }
}

function take (sizes: Iterable<number>, path: string): number[] {
  const taken: number[] = []
  for (const size of sizes) {
    if (taken.length === BLOCKS_MAX) throw new LimitExceededError(`${printable(path)} needs more than ${BLOCKS_MAX} blocks; split the file`)
    taken.push(size)
  }
  return taken
}
