import { hash } from 'node:crypto'
import type { PeerId } from '@libp2p/interface'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import * as Digest from 'multiformats/hashes/digest'

const SHA2_256 = 0x12
/** Bytes of a sha2-256 digest, and of a place in the key space. */
export const KEY_BYTES = 32
/** Bytes of a sha2-256 multihash. */
export const MULTIHASH_BYTES = 2 + KEY_BYTES

/**
 * Under which key the DHT knows a thing: `CIDv1(raw, sha2-256(multihash of the thing))`. The JavaScript DHT takes
 * sha2-256 keys only; hashing the multihash makes one of any. The codec plays no part, so a block and an index with
 * the same bytes share a key.
 */
export function dhtKey (cid: CID): CID {
  return CID.createV1(raw.code, Digest.create(SHA2_256, dhtDigest(cid)))
}

/** The digest in `dhtKey(cid)`: 32 bytes stand for the key wherever many are kept. */
export function dhtDigest (cid: CID): Uint8Array {
  return sha256(cid.multihash.bytes)
}

/** The multihash of a DHT key, which is what travels in messages. */
export function multihashOf (digest: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(MULTIHASH_BYTES)
  bytes[0] = SHA2_256
  bytes[1] = KEY_BYTES
  bytes.set(digest, 2)
  return bytes
}

/** The digest in a multihash from outside, or undefined if that is no DHT key. */
export function digestOf (multihash: Uint8Array): Uint8Array | undefined {
  return multihash.length === MULTIHASH_BYTES && multihash[0] === SHA2_256 && multihash[1] === KEY_BYTES ? multihash.subarray(2) : undefined
}

/** Where a key stands in the key space: kad-dht hashes its multihash once more. */
export function kadIdOfDigest (digest: Uint8Array): Uint8Array {
  return sha256(multihashOf(digest))
}

/** Where a peer stands in the key space. */
export function kadIdOfPeer (peerId: PeerId): Uint8Array {
  return sha256(peerId.toMultihash().bytes)
}

/** Below zero when `a` is closer to `target` than `b`, by XOR. */
export function compareDistance (target: Uint8Array, a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < KEY_BYTES; i++) {
    const t = target[i] ?? 0
    const difference = (t ^ (a[i] ?? 0)) - (t ^ (b[i] ?? 0))
    if (difference !== 0) return difference
  }
  return 0
}

/** How many leading bits two places share. */
export function commonPrefixLength (a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < KEY_BYTES; i++) {
    const difference = (a[i] ?? 0) ^ (b[i] ?? 0)
    if (difference !== 0) return i * 8 + Math.clz32(difference) - 24
  }
  return KEY_BYTES * 8
}

/** `place` with bit `at` turned over; the bits after it are of no account. */
export function flipBit (place: Uint8Array, at: number): Uint8Array {
  const flipped = new Uint8Array(place)
  flipped[at >> 3] = (flipped[at >> 3] ?? 0) ^ (0x80 >> (at & 7))
  return flipped
}

/** The first and the last place that share `length` leading bits with `place`. */
export function prefixBounds (place: Uint8Array, length: number): { low: Uint8Array, high: Uint8Array } {
  const low = new Uint8Array(place)
  const high = new Uint8Array(place)
  for (let i = 0; i < KEY_BYTES; i++) {
    const kept = Math.max(0, Math.min(8, length - i * 8))
    const mask = 0xff >> kept
    low[i] = (low[i] ?? 0) & ~mask
    high[i] = (high[i] ?? 0) | mask
  }
  return { low, high }
}

function sha256 (bytes: Uint8Array): Uint8Array {
  // A copy, because the slice() of a Buffer is none.
  return new Uint8Array(hash('sha256', bytes, 'buffer'))
}
