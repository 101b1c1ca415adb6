import type { Libp2p } from '@libp2p/interface'
import {
  HashMismatchError, NodeStoppedError, PeerGoneError, PeerTimeoutError, ProtocolError, throwIfAborted, withSignal, type Clock, type Logger
} from '../base/index.ts'
import type { SlotPool } from '../storage/slots.ts'
import type { BlockChecks } from './block-checks.ts'
import { openConnection, openStream } from './dial.ts'
import { framesOver, type OpenFrames } from './frame-stream.ts'
import { BLOCK_PROTOCOL } from './messages.ts'
import type { Lane, Lanes } from './lanes/lanes.ts'
import { PeerLink } from './peer-link.ts'
import type { TransportKind } from './types.ts'
import { TokenBucket } from './rate.ts'
import { SEND_BYTES_MAX } from './wire.ts'

export interface PeerLinksComponents { network: Libp2p, lanes: Lanes, slots: SlotPool, checks?: BlockChecks | undefined, clock: Clock, logger: Logger }
export interface PeerLinksSettings { requestTimeoutMs: number, downloadBytesPerSecond: number | undefined, peerBytesPerSecond?: number | undefined }

export interface PeerLinksHooks {
  received: (peerId: string, bytes: number) => void
  opened: (peerId: string, transport: TransportKind) => void
  /** The peer broke the protocol or sent wrong bytes. */
  violation: (peerId: string, reason: string) => void
}

/** The right to use a link until `release`. `closed` is told once if the link ends before. */
export interface Lease {
  /** Where to ask now; a lane that opened late takes the place of the stream. What is asked for already comes where it was asked for. */
  readonly link: PeerLink
  /** When anything last came from the peer, over whichever, in monotonic milliseconds. */
  readonly heardAt: number
  /** This side takes nothing in over one of them: the peer is not at fault. */
  readonly held: boolean
  release: () => void
}

interface Entry {
  readonly opening: Promise<PeerLink>
  link: PeerLink | undefined
  transport: TransportKind
  /** The stream that a lane took the place of: it gives what it was asked for, and closes. */
  retired: PeerLink | undefined
  /** A lane is being opened. */
  upgrading: boolean
  readonly users: Set<(error: Error) => void>
  /** Its own cap. */
  readonly cap: TokenBucket | undefined
  cancelIdle: () => void
}

/** An unused link stays open this long: file indexes are asked for one after the other, and a fetch follows. */
const IDLE_MS = 5_000
const TICK_MS = 500
/** To wait longer than this for a slot is long, */
const SLOT_WAIT_MS = 5_000
/** and a link that is so many times as fast should not have to wait for slower ones. */
const MUCH_FASTER = 4

/** One link to each peer that something is fetched from, whatever and however much that is. */
export class PeerLinks {
  readonly #components: PeerLinksComponents
  readonly #settings: PeerLinksSettings
  readonly #hooks: PeerLinksHooks
  readonly #entries = new Map<string, Entry>()
  readonly #stopping = new AbortController()
  readonly #download: TokenBucket | undefined
  #cancelTick: (() => void) | undefined

  constructor (components: PeerLinksComponents, settings: PeerLinksSettings, hooks: PeerLinksHooks) {
    this.#components = components
    this.#settings = settings
    this.#hooks = hooks
    this.#download = this.#capOf(settings.downloadBytesPerSecond)
  }

  get open (): number { return this.#entries.size }

  /** Opens the link if there is none. Throws when the peer cannot be reached or the signal fires. */
  async lease (peerId: string, closed: (error: Error) => void, signal: AbortSignal): Promise<Lease> {
    throwIfAborted(signal)
    throwIfAborted(this.#stopping.signal)
    const entry = this.#entries.get(peerId) ?? this.#create(peerId)
    entry.cancelIdle()
    entry.users.add(closed)
    const release = (): void => {
      if (entry.users.delete(closed) && entry.users.size === 0) this.#idle(peerId, entry)
    }
    try {
      const first = await withSignal(entry.opening, signal)
      if ((entry.link ?? first).closed) throw new PeerGoneError(`the connection to ${peerId} ended`)
      const current = (): PeerLink => entry.link ?? first
      return {
        get link () { return current() },
        get heardAt () { return Math.max(current().heardAt, entry.retired?.heardAt ?? 0) },
        get held () { return current().held || (entry.retired?.closed === false && entry.retired.held) },
        release
      }
    } catch (error) {
      release()
      throw error
    }
  }

  /** Ends the link to a peer; its users are told. */
  drop (peerId: string, error: Error): void {
    const entry = this.#entries.get(peerId)
    if (entry === undefined) return
    entry.link?.abort(error)
    this.#ended(peerId, entry, error)
  }

  stop (): void {
    const error = new NodeStoppedError('the node is stopping')
    this.#stopping.abort(error)
    for (const peerId of this.#entries.keys()) this.drop(peerId, error)
    this.#cancelTick?.()
  }

  #create (peerId: string): Entry {
    const opening = this.#open(peerId, lane => { this.#upgrade(peerId, entry, lane) }).then(({ frames, transport, abort }) => {
      // Dropped (banned, stopped) while it was dialled.
      if (this.#entries.get(peerId) !== entry) {
        const error = new PeerGoneError(`${peerId} was let go`)
        abort(error)
        throw error
      }
      return this.#use(peerId, entry, frames, transport)
    })
    const entry: Entry = { opening, link: undefined, transport: 'stream', retired: undefined, upgrading: false, users: new Set(), cap: this.#capOf(this.#settings.peerBytesPerSecond), cancelIdle: () => undefined }
    this.#entries.set(peerId, entry)
    opening.catch(() => { if (this.#entries.get(peerId) === entry) this.#entries.delete(peerId) })
    this.#tickSoon()
    return entry
  }

  #use (peerId: string, entry: Entry, frames: OpenFrames, transport: TransportKind): PeerLink {
    this.#hooks.opened(peerId, transport)
    const link = new PeerLink(peerId, frames, this.#components, {
      received: bytes => this.#received(peerId, bytes, entry.cap),
      yields: () => this.#yields(link),
      wrong: error => { this.#hooks.violation(peerId, error.message) },
      closed: error => {
        if (transport === 'lane') this.#components.lanes.ended(peerId, { delivered: link.delivered, slow: error instanceof PeerTimeoutError })
        if (entry.link === link) this.#ended(peerId, entry, error)
        if (error instanceof ProtocolError || error instanceof HashMismatchError) this.#hooks.violation(peerId, error.message)
      }
    })
    entry.transport = transport
    return entry.link = link
  }

  /**
   * A lane where one can be had soon, else a stream. `late` is told of one that opens after that.
   */
  async #open (peerId: string, late: (lane: Promise<Lane | undefined>) => void): Promise<{ frames: OpenFrames, transport: TransportKind, abort: (error: Error) => void }> {
    const { network, lanes, clock } = this.#components
    const { signal } = this.#stopping
    const dial = { clock, timeoutMs: this.#settings.requestTimeoutMs, signal }
    await openConnection(network, peerId, dial) // a lane stands beside one
    const { lane: opening, slow } = lanes.open(peerId, signal)
    const lane = await Promise.race([opening, slow])
    if (lane !== undefined) return { frames: lane.open, transport: 'lane', abort: lane.abort }
    const streaming = openStream(network, peerId, BLOCK_PROTOCOL, dial)
    const sooner = await Promise.race([opening, streaming.then(() => undefined, async () => await opening)])
    if (sooner !== undefined) {
      streaming.then(stream => { stream.abort(new PeerGoneError('the lane came first')) }, () => undefined)
      return { frames: sooner.open, transport: 'lane', abort: sooner.abort }
    }
    const stream = await streaming
    late(opening)
    return { frames: framesOver(stream), transport: 'stream', abort: error => { stream.abort(error) } }
  }

  /** When the lane opens it takes the place of the stream, which gives what it was asked for, and closes. */
  #upgrade (peerId: string, entry: Entry, opening: Promise<Lane | undefined>): void {
    entry.upgrading = true
    const upgrade = async (): Promise<void> => {
      const lane = await opening
      if (lane === undefined) return
      const stream = await entry.opening.catch(() => undefined) // told to whoever leased it
      if (stream === undefined || stream.closed || this.#entries.get(peerId) !== entry || entry.transport !== 'stream') { lane.abort(); return }
      this.#use(peerId, entry, lane.open, 'lane')
      entry.retired = stream
      stream.retire()
    }
    upgrade().catch(() => undefined).finally(() => { entry.upgrading = false }) // it throws when this stops
  }

  /** Under a download cap: for how long to take no more. */
  #received (peerId: string, bytes: number, cap: TokenBucket | undefined): number {
    this.#hooks.received(peerId, bytes)
    if (this.#download === undefined && cap === undefined) return 0
    const now = this.#components.clock.monotonic()
    this.#download?.take(bytes, now)
    cap?.take(bytes, now)
    return Math.max(this.#download?.waitMs(now) ?? 0, cap?.waitMs(now) ?? 0)
  }

  #capOf (bytesPerSecond: number | undefined): TokenBucket | undefined {
    return bytesPerSecond === undefined ? undefined : new TokenBucket(bytesPerSecond, SEND_BYTES_MAX, this.#components.clock.monotonic())
  }

  #idle (peerId: string, entry: Entry): void {
    if (this.#entries.get(peerId) !== entry) return
    entry.cancelIdle()
    entry.cancelIdle = this.#components.clock.setTimeout(() => {
      if (this.#entries.get(peerId) !== entry || entry.users.size > 0) return
      this.#entries.delete(peerId)
      entry.link?.close()
      entry.retired?.close()
    }, IDLE_MS)
  }

  #ended (peerId: string, entry: Entry, error: Error): void {
    if (this.#entries.get(peerId) === entry) this.#entries.delete(peerId)
    entry.cancelIdle()
    entry.retired?.abort(error)
    const users = [...entry.users]
    entry.users.clear()
    for (const closed of users) closed(error)
  }

  #tickSoon (): void {
    if (this.#cancelTick !== undefined || this.#stopping.signal.aborted) return
    this.#cancelTick = this.#components.clock.setTimeout(() => {
      this.#cancelTick = undefined
      this.#tick()
      if (this.#entries.size > 0) this.#tickSoon()
    }, TICK_MS)
  }

  /** Half of the slots are for links that are much faster than this one, or may be: else those that crawl, which keep theirs for long, would have them all. */
  #yields (link: PeerLink): boolean {
    const now = this.#components.clock.monotonic()
    const pace = link.pace(now)
    if (pace === undefined) return false
    const others = [...this.#all()].filter(other => other !== link)
    const swiftest = Math.max(0, ...others.filter(({ open }) => open > 0).map(other => other.pace(now) ?? (other.waitsSince === undefined ? 0 : Infinity)))
    const crawls = (other: PeerLink): boolean => (other.pace(now) ?? Infinity) * MUCH_FASTER <= swiftest
    return crawls(link) && others.filter(other => other.filling && crawls(other)).length >= this.#slotsForCrawlers
  }

  /** Who has waited for long and may be fast gets the slot of the one that would keep it longest, if that is as long again, while such have more than half of them. */
  #displace (now: number): void {
    const links = [...this.#all()]
    const crawling = links.filter(link => link.slotMs(now) > SLOT_WAIT_MS)
    const slowest = crawling.sort((a, b) => b.slotMs(now) - a.slotMs(now))[0]
    if (slowest === undefined || crawling.length <= this.#slotsForCrawlers) return
    const paceMin = (slowest.pace(now) ?? 0) * MUCH_FASTER
    if (links.some(link => now - (link.waitsSince ?? now) > SLOT_WAIT_MS && (link.pace(now) ?? Infinity) >= paceMin)) slowest.displace()
  }

  get #slotsForCrawlers (): number { return Math.ceil(this.#components.slots.size / 2) }

  * #all (): Generator<PeerLink> {
    for (const { retired, link } of this.#entries.values()) for (const each of [retired, link]) if (each?.closed === false) yield each
  }

  /** While somebody waits for a slot, one that is filled too slowly is given up for it. Long loads over a stream try for a lane again. */
  #tick (): void {
    const { clock, slots, lanes } = this.#components
    const now = clock.monotonic()
    slots.serve() // who yielded to somebody that has gone
    if (slots.waiting > 0) this.#displace(now)
    for (const [peerId, entry] of this.#entries) {
      for (const link of [entry.retired, entry.link]) if (slots.waiting > 0) link?.giveUpSlowSlot(now)
      if (entry.transport === 'stream' && entry.link !== undefined && !entry.upgrading && entry.users.size > 0 && lanes.mayOpen(peerId)) this.#upgrade(peerId, entry, lanes.open(peerId, this.#stopping.signal).lane)
    }
  }
}
