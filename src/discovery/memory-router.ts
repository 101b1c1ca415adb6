import type { CID } from 'multiformats/cid'
import { NodeStoppedError, abortReason, systemClock, type AbortOptions, type Clock } from '../base/index.ts'
import { dhtKey } from './dht-key.ts'
import { RECORD_VALIDITY_MS } from './provider-records.ts'
import type { ContentRouter, FindOptions, Provider, RouterStatus } from './router.ts'

interface Record {
  provider: Provider
  /** When it becomes void; its node renews it at each look while it keeps it announced and runs. */
  expiresAt: number
}

/** What the routers of one simulated swarm share: the records, and who is there. */
export class MemoryRendezvous {
  readonly #clock: Clock
  readonly #records = new Map<string, Map<string, Record>>()
  readonly #running = new Map<string, MemoryRouter>()

  constructor (init: { clock?: Clock } = {}) {
    this.#clock = init.clock ?? systemClock
  }

  get clock (): Clock { return this.#clock }

  join (peerId: string, router: MemoryRouter): void { this.#running.set(peerId, router) }
  leave (peerId: string): void { this.#running.delete(peerId) }
  get running (): string[] { return [...this.#running.keys()] }

  put (key: string, provider: Provider): void {
    let providers = this.#records.get(key)
    if (providers === undefined) this.#records.set(key, providers = new Map())
    providers.set(provider.peerId, { provider, expiresAt: this.#clock.now() + RECORD_VALIDITY_MS })
  }

  providersOf (key: string): Provider[] {
    const providers = this.#records.get(key)
    if (providers === undefined) return []
    const now = this.#clock.now()
    for (const [peerId, record] of providers) {
      if (this.#running.get(peerId)?.keeps(key) === true) record.expiresAt = now + RECORD_VALIDITY_MS
      else if (record.expiresAt <= now) providers.delete(peerId)
    }
    if (providers.size === 0) this.#records.delete(key)
    return Array.from(providers.values(), record => record.provider)
  }
}

export interface MemoryRouterInit {
  peerId: string
  multiaddrs: () => string[]
}

/** The router of a simulated node: instant, and otherwise as the DHT's (records outlive their node, and are void after two days). */
export function createMemoryRouter (rendezvous: MemoryRendezvous, init: MemoryRouterInit): ContentRouter {
  return new MemoryRouter(rendezvous, init)
}

class MemoryRouter implements ContentRouter {
  readonly #rendezvous: MemoryRendezvous
  readonly #init: MemoryRouterInit
  readonly #kept = new Set<string>()
  #stopped = new AbortController()
  #started = false
  #announced = 0
  #sweptAt: number | undefined

  constructor (rendezvous: MemoryRendezvous, init: MemoryRouterInit) {
    this.#rendezvous = rendezvous
    this.#init = init
  }

  keeps (key: string): boolean { return this.#kept.has(key) }

  async start (): Promise<void> {
    this.#stopped = new AbortController()
    this.#started = true
    this.#rendezvous.join(this.#init.peerId, this)
    this.#put([...this.#kept])
  }

  async stop (): Promise<void> {
    this.#started = false
    this.#stopped.abort()
    this.#rendezvous.leave(this.#init.peerId)
  }

  announce (cids: Iterable<CID>): void {
    const keys = Array.from(cids, cid => dhtKey(cid).toString())
    for (const key of keys) this.#kept.add(key)
    if (this.#started) this.#put(keys)
  }

  async sent (_cid: CID, { signal }: AbortOptions = {}): Promise<void> {
    if (signal?.aborted === true) throw abortReason(signal)
  }

  withdraw (cids: Iterable<CID>): void {
    for (const cid of cids) this.#kept.delete(dhtKey(cid).toString())
  }

  async * findProviders (cid: CID, options: FindOptions = {}): AsyncGenerator<Provider> {
    const others = this.#rendezvous.running.filter(peerId => peerId !== this.#init.peerId)
    for (const peerId of others) options.onAsked?.(peerId)
    for (const provider of this.#rendezvous.providersOf(dhtKey(cid).toString())) {
      if (this.#stopped.signal.aborted) throw new NodeStoppedError('the node is stopping')
      if (options.signal?.aborted === true) throw abortReason(options.signal)
      if (provider.peerId !== this.#init.peerId) yield provider
    }
    if (options.signal?.aborted === true) throw abortReason(options.signal)
  }

  status (): RouterStatus {
    return {
      keys: this.#kept.size,
      backlog: this.#started ? 0 : this.#kept.size,
      lagMs: 0,
      announced: this.#announced,
      failed: 0,
      sweptAt: this.#sweptAt
    }
  }

  #put (keys: readonly string[]): void {
    for (const key of keys) this.#rendezvous.put(key, { peerId: this.#init.peerId, multiaddrs: this.#init.multiaddrs() })
    this.#announced += keys.length
    if (keys.length > 0) this.#sweptAt = this.#rendezvous.clock.now()
  }
}
