import { ANNOUNCE_PAGE_KEYS, asError, type Clock, type Logger, type Random } from '../base/index.ts'
import type { AnnounceQueue, QueuedKey } from './announce-queue.ts'
import type { Contact } from './contact.ts'
import type { DhtClient } from './dht-client.ts'
import { CLOSEST_PEERS } from './lookup.ts'
import { exploreRegion, keepersOf, type Region } from './region.ts'

export interface SweepComponents {
  queue: AnnounceQueue
  client: DhtClient
  /** The nearest peers to the key with this digest. */
  closest: (digest: Uint8Array, signal: AbortSignal, onCutShort?: () => void) => Promise<Contact[]>
  clock: Clock
  random: Random
  logger: Logger
}

export interface SweepInit {
  /** Peers written to at once. */
  concurrency: number
  /** When a key that was announced now is due again. */
  dueAgain: (kadId: Uint8Array) => number
  onAnnounced: (count: number) => void
  onFailed: (count: number) => void
}

/** A key counts as announced when at least this share of the peers that should keep it took it. */
const TAKEN_SHARE = 0.5

/**
 * Announces many keys (docs/decisions/0004-discovery.md). A lookup for each key would cost some forty streams; instead, the key space
 * is gone through region by region: the peers of a region are looked up once, and each gets all of its keys on one
 * stream.
 */
export class Sweep {
  readonly #components: SweepComponents
  readonly #init: SweepInit

  constructor (components: SweepComponents, init: SweepInit) {
    this.#components = components
    this.#init = init
  }

  /** Goes once through the keys due by `horizon`. Keys that fail stay due; says how many did. Throws what the signal does. */
  async pass (horizon: number, signal: AbortSignal): Promise<{ announced: number, failed: number }> {
    const { queue, random, closest } = this.#components
    const total = { announced: 0, failed: 0 }
    let after: Uint8Array | undefined
    for (;;) {
      signal.throwIfAborted()
      const first = queue.next(after, horizon)
      if (first === undefined) return total
      const region = await exploreRegion(first.digest, async (digest, onCutShort) => await closest(digest, signal, onCutShort), random)
      const { announced, failed } = await this.#announceRegion(region, first, horizon, signal)
      total.announced += announced
      total.failed += failed
      after = region.high
      if (region.peers.length === 0) return total // alone; there is no better luck elsewhere
    }
  }

  async #announceRegion (region: Region, first: QueuedKey, horizon: number, signal: AbortSignal): Promise<{ announced: number, failed: number }> {
    const { queue } = this.#components
    const { dueAgain, onAnnounced, onFailed } = this.#init
    const session = new RegionSession(this.#components, region.peers, this.#init.concurrency, signal)
    const total = { announced: 0, failed: 0 }
    let low = first.kadId
    for (;;) {
      const page = queue.page(low, region.high, horizon, ANNOUNCE_PAGE_KEYS)
      const last = page.at(-1)
      if (last === undefined) return total
      const taken = await session.announce(page)
      const announced = page.filter((_key, position) => taken[position] === true)
      queue.done(announced, dueAgain)
      onAnnounced(announced.length)
      onFailed(page.length - announced.length)
      total.announced += announced.length
      total.failed += page.length - announced.length
      if (page.length < ANNOUNCE_PAGE_KEYS) return total
      low = following(last.kadId)
    }
  }
}

/** The peers of one region. One that fails gets nothing more in this region. */
class RegionSession {
  readonly #components: SweepComponents
  readonly #peers: readonly Contact[]
  readonly #concurrency: number
  readonly #signal: AbortSignal
  readonly #failed = new Set<string>()

  constructor (components: SweepComponents, peers: readonly Contact[], concurrency: number, signal: AbortSignal) {
    this.#components = components
    this.#peers = peers
    this.#concurrency = concurrency
    this.#signal = signal
  }

  /** Says of each key of the page whether enough of its peers took it. */
  async announce (page: readonly QueuedKey[]): Promise<boolean[]> {
    const shares = new Map<string, { contact: Contact, positions: number[] }>()
    const needed = page.map(({ kadId }, position) => {
      const keepers = keepersOf(kadId, this.#peers)
      for (const contact of keepers) {
        const share = shares.get(contact.id)
        if (share === undefined) shares.set(contact.id, { contact, positions: [position] })
        else share.positions.push(position)
      }
      return Math.max(1, Math.ceil(keepers.length * TAKEN_SHARE))
    })
    const takenBy = new Uint16Array(page.length)
    const waiting = [...shares.values()].filter(({ contact }) => !this.#failed.has(contact.id))
    await Promise.all(Array.from({ length: Math.min(this.#concurrency, waiting.length) }, async () => {
      for (let share = waiting.shift(); share !== undefined; share = waiting.shift()) await this.#send(share.contact, share.positions, page, takenBy)
    }))
    this.#signal.throwIfAborted()
    return needed.map((count, position) => (takenBy[position] ?? 0) >= count)
  }

  async #send (contact: Contact, positions: readonly number[], page: readonly QueuedKey[], takenBy: Uint16Array): Promise<void> {
    let counted = 0
    const onTaken = (count: number): void => {
      for (; counted < count; counted++) {
        const position = positions[counted] ?? 0
        takenBy[position] = (takenBy[position] ?? 0) + 1
      }
    }
    try {
      // Not on a stream of the region's own: others of this page may take longer than a silent one is kept open.
      await this.#components.client.announce(contact, positions.flatMap(position => page[position]?.digest ?? []), onTaken, this.#signal)
    } catch (error) {
      this.#failed.add(contact.id)
      if (!this.#signal.aborted) this.#components.logger.debug({ peerId: contact.id, error: asError(error).message }, 'a peer did not take announcements')
    }
  }
}

/**
 * Announces one key at once: to the nearest peers that are connected, and then to those a lookup finds. Says whether
 * enough of them took it.
 */
export async function announceOne (components: SweepComponents, digest: Uint8Array, connected: readonly Contact[], signal: AbortSignal): Promise<boolean> {
  const told = new Map<string, Promise<boolean>>()
  const tell = (contacts: readonly Contact[]): void => {
    for (const contact of contacts) {
      if (!told.has(contact.id)) told.set(contact.id, announceTo(components, digest, contact, signal))
    }
  }
  tell(connected)
  const closest = await components.closest(digest, signal)
  tell(closest)
  const taken = await Promise.all(closest.map(async contact => await told.get(contact.id)))
  await Promise.all(told.values())
  return closest.length > 0 && taken.filter(ok => ok).length >= Math.min(closest.length, CLOSEST_PEERS) * TAKEN_SHARE
}

async function announceTo (components: SweepComponents, digest: Uint8Array, contact: Contact, signal: AbortSignal): Promise<boolean> {
  try {
    await components.client.announce(contact, [digest], () => undefined, signal)
    return true
  } catch (error) {
    if (!signal.aborted) components.logger.debug({ peerId: contact.id, error: asError(error).message }, 'a peer did not take an announcement')
    return false
  }
}

/** The next place in the key space, with room for neither another key nor an overflow at its end. */
function following (place: Uint8Array): Uint8Array {
  const next = new Uint8Array(place)
  for (let i = next.length - 1; i >= 0; i--) {
    const byte = ((next[i] ?? 0) + 1) & 0xff
    next[i] = byte
    if (byte !== 0) return next
  }
  return place // the very last place; a digest never falls there
}
