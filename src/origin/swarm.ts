import type { Libp2p } from '@libp2p/interface'
import type { CID } from 'multiformats/cid'
import { ORIGIN_PROVIDERS_MAX, ORIGIN_WITNESSES, NodeStoppedError, asError, type Clock, type Logger } from '../base/index.ts'
import type { ContentRouter, Provider } from '../discovery/router.ts'
import { ClaimTable, best, rankOf, type Claim } from './claims.ts'
import type { PeekMessage } from './messages.ts'
import { OriginProtocol } from './protocol.ts'

export interface OriginSwarmComponents {
  network: Libp2p
  router: ContentRouter
  clock: Clock
  logger: Logger
  isBanned: (peerId: string) => boolean
  /** Keeps a provider's addresses. */
  learn: (provider: Provider) => Promise<void>
}

export interface OriginSwarmHooks {
  /** This node's own claim. */
  claimOf: (key: string) => Claim | undefined
  peek: (message: PeekMessage) => Promise<Uint8Array | undefined>
}

export interface LookOptions {
  /** Ask those as well who are announced as providers of the name. */
  deep: boolean
  signal: AbortSignal
}

/** A search for providers of a name ends after this; in a small swarm it takes some milliseconds. */
const SEARCH_MS = 5_000
const ASKED_AT_ONCE = 8
/** Of those that others told of, asked themselves. */
const CONFIRMED_MAX = 4

/** What peers say about who has or fetches a model: everybody asks the same few, by rank, and they remember who asked. */
export class OriginSwarm {
  readonly #components: OriginSwarmComponents
  readonly #hooks: OriginSwarmHooks
  readonly #protocol: OriginProtocol
  readonly #table = new ClaimTable()
  readonly #self: string
  #off: () => void = () => undefined

  constructor (components: OriginSwarmComponents, hooks: OriginSwarmHooks) {
    this.#components = components
    this.#hooks = hooks
    this.#self = components.network.peerId.toString()
    this.#protocol = new OriginProtocol(components, {
      asked: (from, { key, claim }) => {
        const now = components.clock.monotonic()
        this.#table.note(key, from, claim, now)
        const own = hooks.claimOf(key)
        return [...own === undefined ? [] : [own], ...this.#table.of(key, now, from)]
      },
      peeked: async message => await hooks.peek(message)
    })
  }

  async start (): Promise<void> {
    const { network } = this.#components
    const forget = (event: CustomEvent<{ toString: () => string }>): void => { this.#table.forget(event.detail.toString()) }
    network.addEventListener('peer:disconnect', forget)
    this.#off = () => { network.removeEventListener('peer:disconnect', forget) }
    await this.#protocol.start()
  }

  async stop (): Promise<void> {
    this.#off()
    await this.#protocol.stop()
  }

  /** True when somebody else could fetch it, too. */
  async hasPeers (): Promise<boolean> { return (await this.#protocol.peers()).length > 0 }

  /**
   * Tells this node's claim to those who remember, and learns what others claim, never of this node itself. `fetching` and `have` are
   * what their own peers said.
   */
  async look (key: string, name: CID, { deep, signal }: LookOptions): Promise<Claim[]> {
    const { clock } = this.#components
    const direct = new Map<string, Claim | undefined>()
    const told = new Map<string, Claim>()
    const ask = async (peerId: string): Promise<void> => {
      if (direct.has(peerId) || peerId === this.#self) return
      direct.set(peerId, undefined)
      for (const claim of await this.#ask(peerId, key, signal)) {
        if (claim.peerId === peerId) direct.set(peerId, claim)
        else if (claim.peerId !== this.#self) told.set(claim.peerId, claim)
      }
    }
    const peers = (await this.#protocol.peers()).sort((a, b) => rankOf(key, b) - rankOf(key, a))
    await Promise.all([
      ...peers.slice(0, ORIGIN_WITNESSES).map(ask),
      ...deep ? [this.#askProviders(name, ask, signal)] : []
    ])
    for (const claim of this.#table.of(key, clock.monotonic(), this.#self)) if (!direct.has(claim.peerId)) told.set(claim.peerId, claim)
    const further = best(key, told.values()).filter(({ state, peerId }) => state !== 'want' && !direct.has(peerId))
    await Promise.all(further.slice(0, CONFIRMED_MAX).map(async ({ peerId }) => { await ask(peerId) }))
    const claims = [...direct.values()].filter(claim => claim !== undefined)
    return [...claims, ...[...told.values()].filter(({ peerId, state }) => state === 'want' && !direct.has(peerId))]
  }

  /** What a peer has received of a file. Undefined when it does not say. */
  async peek (peerId: string, message: PeekMessage, signal: AbortSignal): Promise<Uint8Array | undefined> {
    try {
      const bytes = await this.#protocol.peek(peerId, message, signal)
      return bytes.length === 0 ? undefined : bytes
    } catch (error) {
      this.#components.logger.debug({ peerId, error: asError(error).message }, 'a peer gave nothing of what it fetches')
      return undefined
    }
  }

  async #askProviders (name: CID, ask: (peerId: string) => Promise<void>, given: AbortSignal): Promise<void> {
    const { router, clock, learn, logger } = this.#components
    const late = new AbortController()
    const cancel = clock.setTimeout(() => { late.abort(new NodeStoppedError('the search took long enough')) }, SEARCH_MS)
    const open = new Set<Promise<void>>()
    try {
      let found = 0
      for await (const provider of router.findProviders(name, { signal: AbortSignal.any([given, late.signal]) })) {
        await learn(provider)
        const asking: Promise<void> = ask(provider.peerId).finally(() => { open.delete(asking) })
        open.add(asking)
        if (++found >= ORIGIN_PROVIDERS_MAX) break
        if (open.size >= ASKED_AT_ONCE) await Promise.race(open)
      }
    } catch (error) {
      logger.debug({ error: asError(error).message }, 'a search for who has a model of the upstream ended early')
    } finally {
      cancel()
    }
    await Promise.all(open)
  }

  async #ask (peerId: string, key: string, signal: AbortSignal): Promise<Claim[]> {
    try {
      return await this.#protocol.ask(peerId, { key, claim: this.#hooks.claimOf(key) }, signal)
    } catch (error) {
      this.#components.logger.debug({ peerId, error: asError(error).message }, 'a peer did not say who fetches a model')
      return []
    }
  }
}
