import type { Libp2p, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { PeerTimeoutError, type Clock } from '../base/index.ts'

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
