import type { CID } from 'multiformats/cid'
import {
  BLOCK_BYTES_MAX, FILE_BLOCKS_MAX, FILE_INDEX_BYTES_MAX, FILE_SIZE_MAX, GIT_SHA1_SIZE_MAX, HashMismatchError, InvalidCidError, InvalidFileIndexError,
  LimitExceededError, asError
} from '../base/index.ts'
import { CID_BYTES, DIGEST_BYTES, checkBlockCid, checkBlockCidAt, checkMetadataCid, hashMetadata, verifyBytes } from './block.ts'
import { CanonicalReader, NotCanonicalError } from './canonical-reader.ts'
import { CanonicalWriter } from './canonical-writer.ts'
import { CidList } from './cid-list.ts'
import { printable } from './printable.ts'
import type { Encoded, FileIndex, FileIndexFields } from './types.ts'

/** Chunkers of newer versions are welcome: the name tells how the cuts were found, and readers only need the cuts. */
const CHUNKER = /^[a-z][a-z0-9-]{0,31}$/
const CHUNKER_BYTES_MAX = 32
const SHA1_BYTES = 20

/**
 * The canonical bytes of a file index. Throws LimitExceededError for a file too large, InvalidFileIndexError or
 * InvalidCidError for a value that is none.
 */
export function encodeFileIndex (index: FileIndexFields): Encoded<FileIndex> {
  const { size, sha256, gitSha1, chunker, sizes } = index
  const blocks = ownList(index.blocks)
  if (blocks.length > FILE_BLOCKS_MAX) throw tooLarge(`${blocks.length} blocks, and at most ${FILE_BLOCKS_MAX} are allowed`)
  const value: FileIndex = {
    version: 1, size, sha256: Uint8Array.from(sha256), ...(gitSha1 === undefined ? {} : { gitSha1: Uint8Array.from(gitSha1) }), chunker, blocks, sizes: [...sizes]
  }
  check(value)
  const bytes = writeFileIndex(value)
  if (bytes.length > FILE_INDEX_BYTES_MAX) throw tooLarge(`an index of ${bytes.length} bytes, and at most ${FILE_INDEX_BYTES_MAX} are allowed`)
  return { cid: hashMetadata(bytes), bytes, value }
}

/**
 * A file index from the bytes that `cid` names. The bytes are copied. Throws HashMismatchError when they are not the
 * ones it names, InvalidFileIndexError when they are no canonical index within the limits; its cause tells the rule.
 */
export function decodeFileIndex (cid: CID, bytes: Uint8Array): Encoded<FileIndex> {
  const invalid = (why: string, cause?: unknown): InvalidFileIndexError =>
    new InvalidFileIndexError(`${cid.toString()} is not a valid file index: ${why}. Whoever published it has to publish it again`, { cause })
  if (bytes.length > FILE_INDEX_BYTES_MAX) throw invalid(`it has ${bytes.length} bytes, at most ${FILE_INDEX_BYTES_MAX} are allowed`)
  if (!verifyBytes(checkMetadataCid(cid), bytes)) throw new HashMismatchError(`the bytes given for the file index ${cid.toString()} are not the ones it names`)
  const own = new Uint8Array(bytes)
  try {
    const value = readFileIndex(new CanonicalReader(own))
    check(value)
    return { cid, bytes: own, value }
  } catch (error) {
    if (error instanceof NotCanonicalError || error instanceof InvalidCidError || error instanceof InvalidFileIndexError) {
      throw invalid(asError(error).message, error)
    }
    throw error
  }
}

/** A copy, of block CIDs only. */
function ownList (blocks: Iterable<CID>): CidList {
  if (!(blocks instanceof CidList)) return CidList.from(Array.from(blocks, checkBlockCid))
  const bytes = blocks.bytes.slice()
  for (let at = 0; at < bytes.length; at += CID_BYTES) checkBlockCidAt(bytes, at)
  return new CidList(bytes)
}

function writeFileIndex ({ size, sizes, blocks, sha256, chunker, gitSha1, version }: FileIndex): Uint8Array {
  const writer = new CanonicalWriter()
  writer.map(gitSha1 === undefined ? 6 : 7)
  writer.text('size')
  writer.uint(size)
  writer.text('sizes')
  writer.array(sizes.length)
  for (const bytes of sizes) writer.uint(bytes)
  writer.text('blocks')
  writer.array(blocks.length)
  for (let at = 0; at < blocks.bytes.length; at += CID_BYTES) writer.link(blocks.bytes.subarray(at, at + CID_BYTES))
  writer.text('sha256')
  writer.bytes(sha256)
  writer.text('chunker')
  writer.text(chunker)
  if (gitSha1 !== undefined) {
    writer.text('gitSha1')
    writer.bytes(gitSha1)
  }
  writer.text('version')
  writer.uint(version)
  return writer.end()
}

/** DAG-CBOR sorts keys by length, then by bytes. The one key that may be missing shows in the number of entries. */
function readFileIndex (reader: CanonicalReader): FileIndex {
  const entries = reader.mapOf(6, 7)
  reader.key('size')
  const size = reader.uint(FILE_SIZE_MAX, 'the size')
  reader.key('sizes')
  const count = reader.array(FILE_BLOCKS_MAX, 'block sizes')
  const sizes: number[] = []
  for (let i = 0; i < count; i++) sizes.push(reader.uint(BLOCK_BYTES_MAX, 'a block size'))
  reader.key('blocks')
  const links = reader.array(FILE_BLOCKS_MAX, 'blocks')
  const blocks = new Uint8Array(links * CID_BYTES)
  for (let at = 0; at < blocks.length; at += CID_BYTES) {
    reader.linkInto(blocks, at, 'a block')
    checkBlockCidAt(blocks, at)
  }
  reader.key('sha256')
  const sha256 = reader.bytes(DIGEST_BYTES, 'the sha-256').slice()
  reader.key('chunker')
  const chunker = reader.text(CHUNKER_BYTES_MAX, 'the chunker')
  let gitSha1: Uint8Array | undefined
  if (entries === 7) {
    reader.key('gitSha1')
    gitSha1 = reader.bytes(SHA1_BYTES, 'the git SHA-1').slice()
  }
  reader.key('version')
  const version = reader.uint(Number.MAX_SAFE_INTEGER, 'the version')
  if (version !== 1) throw new NotCanonicalError(`its version is ${version} and this Shoal knows version 1`)
  reader.end()
  return { version: 1, size, sha256, ...(gitSha1 === undefined ? {} : { gitSha1 }), chunker, blocks: new CidList(blocks), sizes }
}

function check ({ size, sha256, gitSha1, chunker, blocks, sizes }: FileIndex): void {
  if (sha256.length !== DIGEST_BYTES) throw new InvalidFileIndexError(`its sha-256 has ${sha256.length} bytes`)
  if (gitSha1 !== undefined && gitSha1.length !== SHA1_BYTES) throw new InvalidFileIndexError(`its git SHA-1 has ${gitSha1.length} bytes`)
  if (gitSha1 !== undefined && size > GIT_SHA1_SIZE_MAX) throw new InvalidFileIndexError(`it has ${size} bytes and a git SHA-1, which only files of ${GIT_SHA1_SIZE_MAX} bytes and less have`)
  if (!CHUNKER.test(chunker)) throw new InvalidFileIndexError(`its chunker ${printable(chunker)} is no name`)
  if (blocks.length !== sizes.length) throw new InvalidFileIndexError(`it has ${blocks.length} blocks and ${sizes.length} block sizes`)
  let total = 0
  for (let i = 0; i < sizes.length; i++) {
    const bytes = sizes[i] ?? 0
    if (!Number.isInteger(bytes) || bytes < 1 || bytes > BLOCK_BYTES_MAX) throw new InvalidFileIndexError(`block ${i} has ${bytes} bytes; a block has 1 to ${BLOCK_BYTES_MAX}`)
    total += bytes
  }
  if (total !== size) throw new InvalidFileIndexError(`its blocks add up to ${total} bytes and its size is ${size}`)
}

function tooLarge (why: string): LimitExceededError {
  return new LimitExceededError(`the file needs ${why}; split it`)
}
