import type { CID } from 'multiformats/cid'
import type { CidList } from './cid-list.ts'

/** One file of a model. `path` uses `/`, is relative, and obeys the rules in model/path.ts. `size` in bytes. */
export interface ManifestFile {
  path: string
  size: number
  index: CID
}

/** A model: its files, sorted by path (by UTF-16 code unit, which for the allowed characters is byte order). */
export interface Manifest {
  version: 1
  files: ManifestFile[]
}

/**
 * A file: `sizes[i]` bytes of block `blocks[i]`, one after the other, are its content; `sizes` add up to `size`.
 * An empty file has no blocks. `sha256` is the 32-byte digest of the whole content, `chunker` the name of the cutter.
 * `gitSha1` is the 20-byte name git gives the content as a blob: only files of at most GIT_SHA1_SIZE_MAX bytes have one,
 * and of those that were published before there was this field none has.
 */
export interface FileIndex {
  version: 1
  size: number
  sha256: Uint8Array
  gitSha1?: Uint8Array | undefined
  chunker: string
  blocks: CidList
  sizes: number[]
}

/** What a file index is made of, before it is checked. */
export type FileIndexFields = Omit<FileIndex, 'blocks'> & { blocks: Iterable<CID> }

/** A value with its canonical DAG-CBOR bytes and the CID of those. */
export interface Encoded<T> {
  cid: CID
  bytes: Uint8Array
  value: T
}

/** A manifest and the indexes of its files: `indexes[i]` belongs to `manifest.value.files[i]`. */
export interface Model {
  manifest: Encoded<Manifest>
  indexes: Array<Encoded<FileIndex>>
}

/** Reads `length` bytes at `offset` of the file that is being cut; fewer only at its end. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>

/** Says where a file is cut: yields the sizes of its blocks, in order, which add up to `size`. Same bytes, same cuts. */
export type Chunker = (size: number, readAt: ReadAt) => Promise<Iterable<number>>

/** One tensor of a safetensors file. `shape` in elements; `offset` in bytes from the start of the file; `length` in bytes. */
export interface Tensor {
  name: string
  dtype: string
  shape: number[]
  offset: number
  length: number
}

/** A run of consecutive blocks of one file, at most SHARD_BYTES_MAX bytes: blocks `first` to `first + count - 1`. */
export interface Shard {
  cid: CID
  first: number
  count: number
  bytes: number
}
