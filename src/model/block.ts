import { createHash } from 'node:crypto'
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash'
import { CID } from 'multiformats/cid'
import { Digest } from 'multiformats/hashes/digest'
import { InvalidCidError, asError } from '../base/index.ts'
import { printable } from './printable.ts'

/** Multicodec codes (github.com/multiformats/multicodec, table.csv). */
export const RAW = 0x55
export const DAG_CBOR = 0x71
export const BLAKE3_256 = 0x1e
export const SHA2_256 = 0x12
const IDENTITY = 0x00

export const DIGEST_BYTES = 32
/** Version, codec, hash and digest length take one byte each for every CID we accept, so there is one valid length. */
export const CID_BYTES = 4 + DIGEST_BYTES
/** The longest text of a CID we accept is base16, 73 characters; what is longer is not worth decoding. */
const CID_TEXT_MAX = 128

/** Hashes bytes as they come. Reusable: `digest` and `reset` both start it over. */
export interface BlockHasher {
  /** The bytes are hashed before it returns, without a copy; they may lie in shared or WebAssembly memory. */
  update: (bytes: Uint8Array) => void
  /** The 32-byte digest of everything since the start. */
  digest: () => Uint8Array
  /** Forgets what came so far. */
  reset: () => void
}

/** BLAKE3-256. Making one costs about 10 us (a native object), so keep it where blocks come one after the other. */
export function createBlockHasher (): BlockHasher {
  const hasher = new Blake3Hasher()
  return {
    update: bytes => { hasher.update(asBuffer(bytes)) },
    digest: () => {
      const digest = hasher.digestBuffer()
      hasher.reset()
      return digest
    },
    reset: () => { hasher.reset() }
  }
}

/** The native module takes any view of bytes; its types know Buffer only, and making one for each call costs more than the call. */
function asBuffer (bytes: Uint8Array): Buffer { return bytes as Buffer }

function createSha256Hasher (): BlockHasher {
  let hash = createHash('sha256')
  return {
    update: bytes => { hash.update(bytes) },
    digest: () => {
      const digest = hash.digest()
      hash = createHash('sha256')
      return digest
    },
    reset: () => { hash = createHash('sha256') }
  }
}

/** A hasher whose digest can be compared with this CID's by `digestMatches`. Throws InvalidCidError for other hashes. */
export function hasherFor (cid: CID): BlockHasher {
  if (cid.multihash.code === BLAKE3_256) return createBlockHasher()
  if (cid.multihash.code === SHA2_256) return createSha256Hasher()
  throw wrongHash(cid)
}

export function digestMatches (cid: CID, digest: Uint8Array): boolean {
  return Buffer.compare(cid.multihash.digest, digest) === 0
}

/** True when the bytes are the ones this CID names. Throws InvalidCidError for a hash we do not accept. */
export function verifyBytes (cid: CID, bytes: Uint8Array): boolean {
  if (cid.multihash.code === BLAKE3_256) return digestMatches(cid, blake3(asBuffer(bytes)))
  const hasher = hasherFor(cid)
  hasher.update(bytes)
  return digestMatches(cid, hasher.digest())
}

/** The CID of a block with this BLAKE3-256 digest. */
export function blockCid (digest: Uint8Array): CID {
  return makeCid(RAW, digest)
}

/** The CID of a block with these bytes: CIDv1, raw, BLAKE3-256. */
export function hashBlock (bytes: Uint8Array): CID {
  return makeCid(RAW, blake3(asBuffer(bytes)))
}

/** The CID of a manifest or file index with these bytes: CIDv1, dag-cbor, BLAKE3-256. */
export function hashMetadata (bytes: Uint8Array): CID {
  return makeCid(DAG_CBOR, blake3(asBuffer(bytes)))
}

function makeCid (codec: number, digest: Uint8Array): CID {
  if (digest.length !== DIGEST_BYTES) throw new RangeError(`a BLAKE3-256 digest has ${DIGEST_BYTES} bytes, not ${digest.length}`)
  const bytes = new Uint8Array(CID_BYTES)
  bytes[0] = 1
  bytes[1] = codec
  bytes[2] = BLAKE3_256
  bytes[3] = DIGEST_BYTES
  bytes.set(digest, 4)
  return viewCid(bytes)
}

/**
 * A CID from its binary form off the wire or disk, which is copied. Exactly the forms Shoal uses pass: CIDv1, raw or
 * dag-cbor, BLAKE3-256 or SHA2-256, untruncated, no longer spelling of the same. Throws InvalidCidError.
 */
export function decodeCid (bytes: Uint8Array): CID {
  checkCidBytes(bytes)
  return viewCid(new Uint8Array(bytes)) // a Buffer's slice() is a view
}

/** decodeCid without the copy, for bytes that are ours and stay as they are. */
export function viewOfCid (bytes: Uint8Array): CID {
  checkCidBytes(bytes)
  return viewCid(bytes)
}

function viewCid (bytes: Uint8Array): CID {
  const multihash = new Digest(bytes[2] ?? 0, DIGEST_BYTES, bytes.subarray(4), bytes.subarray(2))
  return new CID(1, bytes[1] ?? 0, multihash, bytes)
}

function checkCidBytes (bytes: Uint8Array): void {
  if (bytes.length === CID_BYTES && bytes[0] === 1 && (bytes[1] === RAW || bytes[1] === DAG_CBOR) &&
    (bytes[2] === BLAKE3_256 || bytes[2] === SHA2_256) && bytes[3] === DIGEST_BYTES) return
  let cid: CID
  try {
    cid = CID.decode(bytes.subarray(0, CID_TEXT_MAX))
  } catch (error) {
    throw new InvalidCidError(`${bytes.length} bytes that should be a CID are none (${asError(error).message})`, { cause: error })
  }
  checkHash(cid)
  throw new InvalidCidError(`${cid.toString()} is not a CID of Shoal: expected CIDv1 of codec raw or dag-cbor, in its shortest form`)
}

/**
 * A model's CID as a user gives it. Throws InvalidCidError, which says which rule it breaks. The result's
 * `toString()` is the one spelling used everywhere else, whatever base the text was in.
 */
export function parseModelCid (text: string): CID {
  let cid: CID
  try {
    if (text.length > CID_TEXT_MAX) throw new Error(`it has ${text.length} characters`)
    cid = CID.parse(text)
  } catch (error) {
    // What the parser says of it speaks of bases and varints.
    const why = text.length > CID_TEXT_MAX ? `it has ${text.length} characters` : 'it is mistyped, or cut short'
    throw new InvalidCidError(`${printable(text)} is not a CID: ${why}; give the model CID that shoal add printed`, { cause: error })
  }
  if (cid.version === 1 && cid.code === RAW) {
    checkHash(cid)
    throw new InvalidCidError(`${cid.toString()} names a single block, not a model; give the model CID that shoal add printed`)
  }
  return checkMetadataCid(cid)
}

/** Throws InvalidCidError unless it can name a block: CIDv1, raw, BLAKE3-256 or SHA2-256. Returns it. */
export function checkBlockCid (cid: CID): CID {
  return checkCid(cid, RAW, 'block', 'raw')
}

/** The same for the CID_BYTES at `offset`. Makes a CID of them only to say what is wrong. */
export function checkBlockCidAt (bytes: Uint8Array<ArrayBuffer>, offset: number): void {
  const hash = bytes[offset + 2]
  if (bytes[offset] === 1 && bytes[offset + 1] === RAW && (hash === BLAKE3_256 || hash === SHA2_256) && bytes[offset + 3] === DIGEST_BYTES) return
  checkBlockCid(viewOfCid(bytes.subarray(offset, offset + CID_BYTES)))
}

/** Throws InvalidCidError unless it can name a manifest or file index: CIDv1, dag-cbor, BLAKE3-256 or SHA2-256. Returns it. */
export function checkMetadataCid (cid: CID): CID {
  return checkCid(cid, DAG_CBOR, 'model', 'dag-cbor')
}

function checkCid (cid: CID, codec: number, what: string, codecName: string): CID {
  if (cid.version !== 1) throw new InvalidCidError(`${cid.toString()} is a CIDv0; a ${what} has a CIDv1`)
  checkHash(cid)
  if (cid.code !== codec) {
    throw new InvalidCidError(`${cid.toString()} has the codec 0x${cid.code.toString(16)}; a ${what} has ${codecName} (0x${codec.toString(16)})`)
  }
  return cid
}

function checkHash (cid: CID): void {
  const { code, size } = cid.multihash
  if (code !== BLAKE3_256 && code !== SHA2_256) throw wrongHash(cid)
  if (size !== DIGEST_BYTES) {
    throw new InvalidCidError(`${printable(cid.toString())} has a digest of ${size} bytes where ${DIGEST_BYTES} are needed; was it cut short?`)
  }
}

function wrongHash (cid: CID): InvalidCidError {
  const { code } = cid.multihash
  const why = code === IDENTITY
    ? 'is an identity CID: it holds its bytes itself and names no content'
    : `has the hash 0x${code.toString(16)}; blake3-256 (0x1e) and sha2-256 (0x12) are accepted`
  return new InvalidCidError(`${printable(cid.toString())} ${why}`)
}

/** The CID's bytes as a string of 36 characters: a map key that costs a tenth of the readable text to make. */
export function cidKey ({ bytes }: Pick<CID, 'bytes'>): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}
