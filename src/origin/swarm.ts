import type { Libp2p } from '@libp2p/interface'
import type { CID } from 'multiformats/cid'
import { ORIGIN_KEYS_MAX, ORIGIN_PROVIDERS_MAX, ORIGIN_TOLD_MAX, ORIGIN_WITNESSES, NodeStoppedError, asError, throwIfAborted, type Clock, type Logger } from '../base/index.ts'
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
  instalmentsOf: (key: string) => readonly string[]
}

export interface LookOptions {
  /** Ask those as well who are announced as providers of the name. */
  deep: boolean
  /** Of one who does not answer in time, take the word of those whom it told: it is waited for, and no more. */
  hearsay?: boolean
  signal: AbortSignal
}

export interface Heard {
  claims: Claim[]
  /** Somebody was asked, and nobody answered: what is not heard says nothing then. */
  isDeaf: boolean
}

/** A search for providers of a name, and telling of one, ends after this; in a small swarm it takes some milliseconds. */
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
  /** By key, the peers that remember what this node said, the first ones first. */
  readonly #told = new Map<string, Set<string>>()
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
      peeked: async message => await hooks.peek(message),
      listed: key => hooks.instalmentsOf(key)
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
   * what their own peers said, but for hearsay.
   */
  async look (key: string, name: CID, { deep, hearsay = false, signal }: LookOptions): Promise<Heard> {
    const { clock } = this.#components
    const direct = new Map<string, Claim | undefined>()
    const told = new Map<string, Claim>()
    const silent = new Set<string>()
    const ask = async (peerId: string): Promise<void> => {
      if (direct.has(peerId) || peerId === this.#self) return
      direct.set(peerId, undefined)
      const said = await this.#ask(peerId, key, signal)
      if (said === undefined) silent.add(peerId)
      for (const claim of said ?? []) {
        if (claim.peerId === peerId) direct.set(peerId, claim)
        else if (claim.peerId !== this.#self) told.set(claim.peerId, claim)
      }
    }
    const peers = (await this.#protocol.peers()).sort((a, b) => rankOf(key, b) - rankOf(key, a))
    await Promise.all([
      // Those who were told before, too: a node that has met others since goes on being heard where it was heard first.
      ...this.#toTell(key, peers.slice(0, ORIGIN_WITNESSES)).map(ask),
      ...deep ? [this.#askProviders(name, ask, signal)] : []
    ])
    for (const claim of this.#table.of(key, clock.monotonic(), this.#self)) if (!direct.has(claim.peerId)) told.set(claim.peerId, claim)
    const further = best(key, told.values()).filter(({ state, peerId }) => state !== 'want' && !direct.has(peerId))
    await Promise.all(further.slice(0, CONFIRMED_MAX).map(async ({ peerId }) => { await ask(peerId) }))
    const claims = [...direct.values()].filter(claim => claim !== undefined)
    const others = [...told.values()].filter(({ peerId, state }) => state === 'want' && !direct.has(peerId))
    // Many come to one at the same moment, and it fetches all the same.
    const busy = hearsay ? [...told.values()].filter(({ peerId, state }) => state !== 'want' && silent.has(peerId)) : []
    return {
      claims: [...claims, ...others, ...busy.map((claim): Claim => ({ ...claim, state: 'fetching', cid: undefined }))],
      isDeaf: direct.size > 0 && silent.size === direct.size
    }
  }

  /** From when it resolves, who searches for the name finds this node, unless the search went another way. */
  async announce (name: CID, given: AbortSignal): Promise<void> {
    const { router, clock } = this.#components
    const late = new AbortController()
    const cancel = clock.setTimeout(() => { late.abort(new NodeStoppedError('announcing took long enough')) }, SEARCH_MS)
    // Two that begin together find each other by it, or the model is fetched twice.
    router.announce([name], { urgent: true, thorough: true })
    try {
      await router.sent(name, { signal: AbortSignal.any([given, late.signal]) })
    } catch {
      throwIfAborted(given) // else it goes on by itself
    } finally {
      cancel()
    }
  }

  /** Tells those who remember an earlier word of this node what it says now, once. */
  async tell (key: string, signal: AbortSignal): Promise<void> {
    await Promise.all([...this.#told.get(key) ?? []].map(async peerId => { await this.#ask(peerId, key, signal) }))
    if (this.#hooks.claimOf(key)?.state === 'have') this.#told.delete(key)
  }

  #toTell (key: string, witnesses: readonly string[]): string[] {
    const told = this.#told.get(key) ?? new Set<string>()
    this.#told.delete(key)
    this.#told.set(key, told)
    const all = new Set([...told, ...witnesses])
    for (const peerId of witnesses) if (told.size < ORIGIN_TOLD_MAX) told.add(peerId)
    for (const oldest of this.#told.keys()) {
      if (this.#told.size <= ORIGIN_KEYS_MAX) break
      this.#told.delete(oldest)
    }
    return [...all]
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

  /** The models of some files each that a peer has published while it fetches. Empty when it does not say. */
  async instalments (peerId: string, key: string, signal: AbortSignal): Promise<string[]> {
    try {
      return await this.#protocol.instalments(peerId, key, signal)
    } catch (error) {
      this.#components.logger.debug({ peerId, error: asError(error).message }, 'a peer did not say what it has published of a model that it fetches')
      return []
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

  /** Undefined when it does not answer. */
  async #ask (peerId: string, key: string, signal: AbortSignal): Promise<Claim[] | undefined> {
    try {
      return await this.#protocol.ask(peerId, { key, claim: this.#hooks.claimOf(key) }, signal)
    } catch (error) {
      this.#components.logger.debug({ peerId, error: asError(error).message }, 'a peer did not say who fetches a model')
      return undefined
    }
  }
}
