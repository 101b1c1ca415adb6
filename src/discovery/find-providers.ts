import { peerIdFromString } from '@libp2p/peer-id'
import { DHT_PROVIDERS_PER_ANSWER_MAX, DHT_PROVIDERS_PER_SEARCH_MAX, NodeStoppedError, abortReason, asError } from '../base/index.ts'
import { contactOf, type Contact } from './contact.ts'
import type { DhtClient } from './dht-client.ts'
import { kadIdOfDigest } from './dht-key.ts'
import { lookup } from './lookup.ts'
import type { Network } from './network.ts'
import type { FindOptions, Provider } from './router.ts'

export interface FindProvidersInit extends FindOptions {
  digest: Uint8Array
  seeds: Contact[]
  /** Fires when the router stops. */
  stopped: AbortSignal
}

/**
 * Who provides the key: what this node was told itself, then what the nearest peers were told. All of those are asked,
 * however many providers the first ones name (kad-dht's own search ends at 20, which one liar can fill). The search
 * ends when the reader stops reading. Throws what the signal says; NodeStoppedError when the router stops.
 */
export async function * findProviders (components: { network: Network, client: DhtClient, self: string }, init: FindProvidersInit): AsyncGenerator<Provider> {
  const { network, client, self } = components
  const over = new AbortController()
  const signal = AbortSignal.any([over.signal, init.stopped, ...(init.signal === undefined ? [] : [init.signal])])
  const found: Provider[] = []
  const seen = new Set([self])
  let wake: (() => void) | undefined
  let ended = false
  const add = (contacts: readonly Contact[], namedBy?: string): void => {
    for (const contact of contacts) {
      if (seen.has(contact.id) || seen.size > DHT_PROVIDERS_PER_SEARCH_MAX) continue
      seen.add(contact.id)
      found.push({ peerId: contact.id, multiaddrs: [...new Set(contact.multiaddrs.map(address => withoutPeer(address.toString(), contact.id)))], ...namedBy === undefined ? {} : { namedBy } })
    }
    wake?.()
  }
  const search = async (): Promise<void> => {
    add(await toldHere(network, init.digest))
    await lookup({
      target: kadIdOfDigest(init.digest),
      seeds: init.seeds,
      self,
      signal,
      ask: async (contact, signal) => {
        init.onAsked?.(contact.id)
        const answer = await client.getProviders(contact, init.digest, signal)
        add(answer.providers.slice(0, DHT_PROVIDERS_PER_ANSWER_MAX), contact.id)
        return answer.closer
      }
    })
  }
  let failure: Error | undefined
  const searching = search().catch(error => { failure = asError(error) }).finally(() => { ended = true; wake?.() })
  signal.addEventListener('abort', () => { wake?.() })
  try {
    for (;;) {
      if (init.stopped.aborted) throw new NodeStoppedError('the node is stopping')
      if (init.signal?.aborted === true) throw abortReason(init.signal)
      const next = found.shift()
      if (next !== undefined) yield next
      else if (ended) break
      else await new Promise<void>(resolve => { wake = resolve })
    }
    if (failure !== undefined) throw failure
  } finally {
    over.abort()
    await searching
  }
}

/** Some peers write their id behind each address, some do not, and many are kept both ways. */
function withoutPeer (address: string, id: string): string {
  const suffix = `/p2p/${id}`
  return address.endsWith(suffix) ? address.slice(0, -suffix.length) : address
}

async function toldHere (network: Network, digest: Uint8Array): Promise<Contact[]> {
  const contacts: Contact[] = []
  for (const id of await network.services.records.providersOf(digest)) {
    const peerId = peerIdFromString(id)
    const peer = await network.peerStore.get(peerId).catch(() => undefined) // forgotten: its id alone may still help
    contacts.push(contactOf(peerId, peer?.addresses.map(address => address.multiaddr)))
  }
  return contacts
}
