import type { Libp2p } from '@libp2p/interface'
import {
  DHT_PROVIDERS_PER_SEARCH_MAX, NodeStoppedError, REPLICA_FOUND_MAX, REPLICA_SEARCHES_MAX, REPLICA_SEARCHES_WAITING_MAX, Semaphore, asError, throwIfAborted, type Clock, type Logger
} from '../base/index.ts'
import type { ContentRouter, Provider } from '../discovery/index.ts'
import { parseModelCid } from '../model/index.ts'

const SEARCH_MS = 15_000

export interface SearchComponents {
  network: Pick<Libp2p, 'getPeers' | 'addEventListener' | 'removeEventListener'>
  router: ContentRouter
  clock: Clock
  logger: Logger
  /** Keeps a provider's addresses, so that it can be dialled by its id. */
  learn: (provider: Provider) => Promise<void>
}

/** Asks the content router who says to have a model: whom to ask, never a proof. */
export class Searches {
  readonly #components: SearchComponents
  readonly #found: (model: string, peerIds: string[]) => void
  readonly #places = new Semaphore(REPLICA_SEARCHES_MAX)
  readonly #open = new Map<string, Promise<void>>()
  readonly #stopping = new AbortController()

  constructor (components: SearchComponents, found: (model: string, peerIds: string[]) => void) {
    this.#components = components
    this.#found = found
  }

  /** One search of a model at a time. False beyond the bound: whoever needs it asks again. */
  find (model: string): boolean {
    if (this.#open.has(model)) return true
    if (this.#stopping.signal.aborted || this.#open.size >= REPLICA_SEARCHES_WAITING_MAX) return false
    const { signal } = this.#stopping
    this.#open.set(model, this.#places.run(async () => { await this.#search(model) }, signal).catch(error => {
      if (!signal.aborted) this.#components.logger.debug({ model, error: asError(error).message }, 'a search for holders failed')
    }).finally(() => { this.#open.delete(model) }))
    return true
  }

  async stop (): Promise<void> {
    this.#stopping.abort(new NodeStoppedError('the node is stopping'))
    await Promise.all(this.#open.values())
  }

  async #search (model: string): Promise<void> {
    const isAlone = this.#components.network.getPeers().length === 0
    let peerIds = await this.#ask(model)
    // Who could ask nobody has heard nothing: a node that starts is connected a moment later.
    if (peerIds.length === 0 && isAlone && await this.#connected()) peerIds = await this.#ask(model)
    this.#found(model, peerIds)
  }

  async #ask (model: string): Promise<string[]> {
    const { router, clock, learn } = this.#components
    const late = new AbortController()
    const cancel = clock.setTimeout(() => { late.abort(new Error('the search took too long')) }, SEARCH_MS)
    const found: Provider[] = []
    try {
      for await (const provider of router.findProviders(parseModelCid(model), { signal: AbortSignal.any([late.signal, this.#stopping.signal]) })) {
        found.push(provider)
        if (found.length >= DHT_PROVIDERS_PER_SEARCH_MAX) break
      }
    } catch (error) {
      if (this.#stopping.signal.aborted || !late.signal.aborted) throw error
    } finally {
      cancel()
    }
    const chosen = inTurns(found, REPLICA_FOUND_MAX)
    for (const provider of chosen) await learn(provider)
    return chosen.map(({ peerId }) => peerId)
  }

  /** Whether a peer is connected before the time of a search is over. Throws when this stops. */
  async #connected (): Promise<boolean> {
    const { network, clock } = this.#components
    const { signal } = this.#stopping
    const connected = await new Promise<boolean>(resolve => {
      const end = (isConnected: boolean): void => {
        cancel()
        network.removeEventListener('peer:connect', onConnect)
        signal.removeEventListener('abort', onOver)
        resolve(isConnected)
      }
      const onConnect = (): void => { end(true) }
      const onOver = (): void => { end(false) }
      const cancel = clock.setTimeout(onOver, SEARCH_MS)
      network.addEventListener('peer:connect', onConnect)
      signal.addEventListener('abort', onOver)
      if (network.getPeers().length > 0) onConnect()
    })
    throwIfAborted(signal)
    return connected
  }
}

/** One of each who named some, and again until there are so many: whoever answers first, with the most names, is not the only one heard. */
function inTurns (providers: readonly Provider[], count: number): Provider[] {
  const named = new Map<string | undefined, Provider[]>()
  for (const provider of providers) {
    const list = named.get(provider.namedBy)
    if (list === undefined) named.set(provider.namedBy, [provider])
    else list.push(provider)
  }
  const chosen: Provider[] = []
  for (let turn = 0; chosen.length < Math.min(count, providers.length); turn++) {
    for (const list of named.values()) {
      const provider = list[turn]
      if (provider !== undefined && chosen.length < count) chosen.push(provider)
    }
  }
  return chosen
}
