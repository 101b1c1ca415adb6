import type { PeerId } from '@libp2p/interface'
import { peerIdFromMultihash } from '@libp2p/peer-id'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import * as Digest from 'multiformats/hashes/digest'
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

/** A peer named in an answer; undefined when its id is none. Addresses that are none are left out. */
export function contactFrom (peer: DhtPeer): Contact | undefined {
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
