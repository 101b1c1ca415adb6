import type { PeerId } from '@libp2p/interface'
import { peerIdFromMultihash } from '@libp2p/peer-id'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import * as Digest from 'multiformats/hashes/digest'
import { DHT_CONTACTS_REMEMBERED_MAX } from '../base/index.ts'
import { kadIdOfPeer } from './dht-key.ts'
import type { DhtPeer } from './dht-message.ts'

/** A peer of the DHT: who, where in the key space, and at which addresses. */
export interface Contact {
  id: string
  peerId: PeerId
  kadId: Uint8Array
  /** Empty for a peer we are connected to. */
  multiaddrs: Multiaddr[]
}

export function contactOf (peerId: PeerId, multiaddrs: Multiaddr[] = []): Contact {
  return { id: peerId.toString(), peerId, kadId: kadIdOfPeer(peerId), multiaddrs }
}

/**
 * Those named lately, by what was said of them: twenty peers answer each question with much the same twenty, and to make sense of
 * one takes a hash, a base58 and some parsing. The oldest go first.
 */
const named = new Map<string, Contact>()
/** An id and 16 addresses have some 1,000 characters. */
const NAMED_LENGTH_MAX = 2_048

/** A peer named in an answer; undefined when its id is none. Addresses that are none are left out. */
export function contactFrom (peer: DhtPeer): Contact | undefined {
  const key = [peer.id, ...peer.multiaddrs].map(bytes => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')).join()
  const known = named.get(key)
  if (known !== undefined) return known
  // What is kept must not be a part of the whole answer, which it would keep with it.
  const contact = parse({ id: Uint8Array.from(peer.id), multiaddrs: peer.multiaddrs.map(bytes => Uint8Array.from(bytes)) })
  if (contact === undefined || key.length > NAMED_LENGTH_MAX) return contact
  const [oldest] = named.size >= DHT_CONTACTS_REMEMBERED_MAX ? named.keys() : []
  if (oldest !== undefined) named.delete(oldest)
  named.set(key, contact)
  return contact
}

function parse (peer: DhtPeer): Contact | undefined {
  let peerId: PeerId
  try {
    peerId = peerIdFromMultihash(Digest.decode(peer.id))
  } catch {
    return undefined // another peer's word; there is nothing to be done about it
  }
  return contactOf(peerId, peer.multiaddrs.flatMap(bytes => parseMultiaddr(bytes)))
}

function parseMultiaddr (bytes: Uint8Array): Multiaddr[] {
  try {
    return [multiaddr(bytes)]
  } catch {
    return []
  }
}
