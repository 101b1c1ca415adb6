import type { Libp2p, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { INVENTORY_ADDRESS_BYTES_MAX, INVENTORY_PEER_ADDRESSES_MAX, PeerTimeoutError, type Clock } from '../base/index.ts'

/** Binary multiaddrs under which a peer can be dialled, as far as it told. */
export async function addressesOf (network: Libp2p, peerId: string): Promise<Uint8Array[]> {
  const id = peerIdFromString(peerId)
  if (!await network.peerStore.has(id)) return []
  const { addresses } = await network.peerStore.get(id)
  return addresses.map(({ multiaddr }) => multiaddr.bytes).filter(({ length }) => length <= INVENTORY_ADDRESS_BYTES_MAX).slice(0, INVENTORY_PEER_ADDRESSES_MAX)
}

/** Adds addresses that somebody gave for a peer to those that are known. Throws when the id is none; addresses that are none are left out. */
export async function learnAddresses (network: Libp2p, peerId: string, addresses: Uint8Array[]): Promise<void> {
  const id = peerIdFromString(peerId)
  const multiaddrs = addresses.flatMap(bytes => {
    try {
      return [multiaddr(bytes)]
    } catch {
      return []
    }
  })
  if (multiaddrs.length > 0) await network.peerStore.merge(id, { multiaddrs })
}

export interface DialOptions { clock: Clock, timeoutMs: number, signal: AbortSignal }

/** A stream of `protocol` to a peer, over the connection there is or a new one. Throws what libp2p throws, or PeerTimeoutError. */
export async function openStream (network: Libp2p, peerId: string, protocol: string, options: DialOptions): Promise<Stream> {
  const late = new AbortController()
  const cancel = options.clock.setTimeout(() => {
    late.abort(new PeerTimeoutError(`${peerId} did not answer within ${options.timeoutMs} ms`))
  }, options.timeoutMs)
  try {
    return await network.dialProtocol(peerIdFromString(peerId), protocol, { signal: AbortSignal.any([options.signal, late.signal]), runOnLimitedConnection: false })
  } finally {
    cancel()
  }
}
