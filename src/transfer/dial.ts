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

/** Sees to it that there is a connection. Throws what libp2p throws, or PeerTimeoutError. */
export async function openConnection (network: Libp2p, peerId: string, options: DialOptions): Promise<void> {
  if (network.getConnections(peerIdFromString(peerId)).length > 0) return
  await inTime(peerId, options, async signal => { await network.dial(peerIdFromString(peerId), { signal }) })
}

/** A stream of `protocol` to a peer, over the connection there is or a new one. Throws what libp2p throws, or PeerTimeoutError. */
export async function openStream (network: Libp2p, peerId: string, protocol: string, options: DialOptions): Promise<Stream> {
  return await inTime(peerId, options, async signal => await network.dialProtocol(peerIdFromString(peerId), protocol, { signal, runOnLimitedConnection: false }))
}

async function inTime<T> (peerId: string, { clock, timeoutMs, signal }: DialOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const late = new AbortController()
  const cancel = clock.setTimeout(() => { late.abort(new PeerTimeoutError(`${peerId} did not answer within ${timeoutMs} ms`)) }, timeoutMs)
  try {
    return await work(AbortSignal.any([signal, late.signal]))
  } finally {
    cancel()
  }
}
