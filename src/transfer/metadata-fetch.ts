import type { CID } from 'multiformats/cid'
import { NoProviderError, PeerTimeoutError, abortReason, asError, throwIfAborted, type Clock, type Logger } from '../base/index.ts'
import type { PeerLinks } from './peer-links.ts'

export interface MetadataFetchComponents { links: PeerLinks, clock: Clock, logger: Logger, isBanned: (peerId: string) => boolean }

export interface MetadataRequest {
  cid: CID
  peers: string[]
  bytesMax: number
  requestTimeoutMs: number
  signal: AbortSignal
}

/** Peers asked at a time: one slow peer costs nothing, and a swarm is not flooded for one manifest. */
const ASKED_AT_ONCE = 3

/** The verified bytes of a manifest or file index from the first peer that has it. Throws NoProviderError when none does. */
export async function fetchMetadata (components: MetadataFetchComponents, request: MetadataRequest): Promise<{ bytes: Uint8Array, from: string }> {
  throwIfAborted(request.signal)
  const queue = [...new Set(request.peers)].filter(peerId => !components.isBanned(peerId))
  const asked = queue.length
  const [only] = queue
  if (only !== undefined && asked === 1) {
    // Mostly so, for each of 20,000 file indexes: nobody else has to be told that it is over.
    try {
      return { bytes: await askPeer(components, request, only), from: only }
    } catch (error) {
      throwIfAborted(request.signal)
      throw new NoProviderError(`the one peer asked did not give ${request.cid.toString()}`, { cause: error })
    }
  }
  const over = new AbortController()
  const signal = AbortSignal.any([request.signal, over.signal])
  let found: { bytes: Uint8Array, from: string } | undefined
  const ask = async (): Promise<void> => {
    for (let peerId = queue.shift(); peerId !== undefined && found === undefined && !signal.aborted; peerId = queue.shift()) {
      const from = peerId
      try {
        const bytes = await askPeer(components, { ...request, signal }, from)
        found ??= { bytes, from }
        over.abort()
      } catch (error) {
        components.logger.debug({ cid: request.cid.toString(), peerId, error: asError(error).message }, 'a peer did not give metadata')
      }
    }
  }
  await Promise.all(Array.from({ length: ASKED_AT_ONCE }, ask))
  if (found !== undefined) return found
  throwIfAborted(request.signal)
  throw new NoProviderError(`none of the ${asked} peers asked gave ${request.cid.toString()}`)
}

async function askPeer ({ links, clock }: MetadataFetchComponents, { cid, bytesMax, requestTimeoutMs, signal }: MetadataRequest, peerId: string): Promise<Uint8Array> {
  const asking = Promise.withResolvers<Uint8Array>()
  // Rejected before anybody waits for it when the lease fails.
  asking.promise.catch(() => undefined)
  const lease = await links.lease(peerId, error => { asking.reject(error) }, signal)
  const { link } = lease
  const id = link.requestMetadata({
    cid,
    bytesMax,
    verified: bytes => { asking.resolve(bytes) },
    failed: reason => { asking.reject(new NoProviderError(`${peerId} did not give it: ${reason}`)) }
  })
  const onAbort = (): void => { asking.reject(abortReason(signal)) }
  signal.addEventListener('abort', onAbort, { once: true })
  // Patience is for silence, not for size: it starts anew whenever the peer is heard of.
  let cancelTimer = (): void => undefined
  const watch = (delayMs: number): void => {
    cancelTimer = clock.setTimeout(() => {
      const silentMs = link.held ? 0 : clock.monotonic() - link.heardAt
      if (silentMs < requestTimeoutMs) watch(requestTimeoutMs - silentMs)
      else asking.reject(new PeerTimeoutError(`${peerId} sent nothing for ${requestTimeoutMs} ms`))
    }, delayMs)
  }
  watch(requestTimeoutMs)
  try {
    return await asking.promise
  } finally {
    cancelTimer()
    signal.removeEventListener('abort', onAbort)
    link.cancel(id)
    lease.release()
  }
}
