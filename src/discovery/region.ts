import { type Random } from '../base/index.ts'
import type { Contact } from './contact.ts'
import { KEY_BYTES, commonPrefixLength, compareDistance, flipBit, kadIdOfDigest, prefixBounds } from './dht-key.ts'
import { CLOSEST_PEERS } from './lookup.ts'

/** A part of the key space, and all peers in it: at least CLOSEST_PEERS, or there are no more. */
export interface Region {
  low: Uint8Array
  high: Uint8Array
  peers: Contact[]
}

/** Finding a key in a given corner takes 2^length hashes: this many are tens of milliseconds, and stand for a million peers. */
const PREFIX_LENGTH_MAX = 16
/** A region takes 2 or 3 lookups; what a lying peer can add ends here. */
const LOOKUPS_MAX = 16

/** The nearest peers to the key with this digest; `onCutShort` as in lookup.ts. */
export type Closest = (digest: Uint8Array, onCutShort: () => void) => Promise<Contact[]>

/**
 * The region around a key, whose peers are the nearest ones for every key in it: the smallest corner of the key space
 * that holds the key and at least CLOSEST_PEERS peers.
 *
 * A lookup finds all peers nearer than the last it found, so it knows the corner one bit smaller than what they all
 * share in full; `closest` is asked for the other half, and if that is crowded for its parts, until the whole is known. Of a lookup that was cut
 * short nobody knows what it found all of: then the region is the key alone.
 */
export async function exploreRegion (digest: Uint8Array, closest: Closest, random: Random): Promise<Region> {
  const place = kadIdOfDigest(digest)
  const found = new Map<string, Contact>()
  let lookups = 0
  let isCutShort = false
  /** How many leading bits of `place` make a corner all of whose peers are now found. */
  const look = async (place: Uint8Array, digest: Uint8Array): Promise<number> => {
    lookups++
    const contacts = await closest(digest, () => { isCutShort = true })
    for (const contact of contacts) found.set(contact.id, contact)
    const last = contacts.at(-1)
    return last === undefined || contacts.length < CLOSEST_PEERS ? 0 : commonPrefixLength(place, last.kadId) + 1
  }
  /** Finds all peers in the corner of the first `length` bits of `corner`. */
  const cover = async (corner: Uint8Array, length: number): Promise<void> => {
    if (length > PREFIX_LENGTH_MAX || lookups >= LOOKUPS_MAX || isCutShort) return
    const digest = digestIn(corner, length, random)
    const place = kadIdOfDigest(digest)
    for (let known = await look(place, digest); known > length; known--) await cover(flipBit(place, known - 1), known)
  }

  const known = await look(place, digest)
  const alone = { low: place, high: place, peers: [...found.values()] }
  if (isCutShort) return alone
  if (known === 0) return { ...prefixBounds(place, 0), peers: [...found.values()] }
  const length = known - 1
  await cover(flipBit(place, length), known)
  if (isCutShort) return alone
  return { ...prefixBounds(place, length), peers: [...found.values()].filter(contact => commonPrefixLength(place, contact.kadId) >= length) }
}

/** Which of the region's peers keep the record of a key. */
export function keepersOf (kadId: Uint8Array, peers: readonly Contact[]): Contact[] {
  if (peers.length <= CLOSEST_PEERS) return [...peers]
  return [...peers].sort((a, b) => compareDistance(kadId, a.kadId, b.kadId)).slice(0, CLOSEST_PEERS)
}

/** A digest whose place shares the first `length` bits of `corner`, by trying: on average 2^length hashes. */
function digestIn (corner: Uint8Array, length: number, random: Random): Uint8Array {
  const digest = random.bytes(KEY_BYTES)
  for (let i = 0; commonPrefixLength(kadIdOfDigest(digest), corner) < length; i++) {
    new DataView(digest.buffer, digest.byteOffset).setUint32(0, i)
  }
  return digest
}
