import type { CID } from 'multiformats/cid'
import { ANNOUNCE_URGENT_MAX, asError, sleep, withSignal, type AbortOptions, type Clock, type Logger, type Random } from '../base/index.ts'
import { AnnounceQueue } from './announce-queue.ts'
import type { Contact } from './contact.ts'
import { Contacts } from './contacts.ts'
import { DhtClient } from './dht-client.ts'
import { dhtDigest, kadIdOfDigest, kadIdOfPeer } from './dht-key.ts'
import { findProviders } from './find-providers.ts'
import { CLOSEST_PEERS, lookup, type LookupInit } from './lookup.ts'
import type { Network } from './network.ts'
import type { AnnounceOptions, ContentRouter, FindOptions, Provider, RouterStatus } from './router.ts'
import { Sweep, announceOne, type SweepComponents } from './sweep.ts'

export interface DhtRouterInit {
  network: Network
  /** SQLite file of the announce queue; without it the queue is in memory. */
  queueFile?: string
  clock: Clock
  random: Random
  logger: Logger
  settings: {
    /** Each key is announced again within this time. */
    periodMs: number
    /** Peers written to at once. */
    concurrency: number
  }
}

/** The router over kad-dht. The network must be started before it and stopped after it. */
export function createDhtRouter (init: DhtRouterInit): ContentRouter {
  return new DhtRouter(init)
}

/** Passes through the keys that are due, in one period: few enough that each has many keys for a peer. */
const PASSES_PER_PERIOD = 500
/** After something became due, others usually follow: a short wait sends them together. */
const GATHER_MS = 100
const RETRY_FIRST_MS = 1_000
const RETRY_MAX_MS = 60_000
/** Whoever is urgently announced to is told in any case, which shows who is there; the next pass through the key space is thorough. */
const URGENT_QUIET = 6
/** After the first peer came, and again that much later: who joined at the same time knows others by then. */
const LOOK_AROUND_MS = [5_000, 15_000]
const LOOK_AROUND_TIMEOUT_MS = 20_000
/** Hashed and written to the queue before others get the thread again: some milliseconds. */
const SLICE_KEYS = 500
/** What is to be noted waits this long for more of it. */
const APPLY_AFTER_MS = 50
const LAST_CHANGES_MS = 500
/** The wall clock is looked at this often: timers alone would not notice that it was set. */
const CLOCK_CHECK_MS = 60_000

/** `announced`: it was urgent and is out already. */
interface Change { kind: 'announce' | 'withdraw' | 'announced', cids: CID[] }

class DhtRouter implements ContentRouter {
  readonly #init: DhtRouterInit
  readonly #client: DhtClient
  readonly #contacts: Contacts
  readonly #self: string
  /** Where in the period this node's turn through the key space begins: not all nodes in the same region at once. */
  readonly #phase: number
  readonly #changes: Change[] = []
  readonly #urgent = new Map<string, Promise<void>>()
  readonly #running = new Set<Promise<void>>()
  #stopped = new AbortController()
  #queue: AnnounceQueue | undefined
  #wake: (() => void) | undefined
  #keysCame = false
  #peersCame = false
  /** A first peer came since the start. */
  #hasMet = false
  #announced = 0
  #failed = 0
  #sweptAt: number | undefined

  constructor (init: DhtRouterInit) {
    this.#init = init
    this.#self = init.network.peerId.toString()
    this.#client = new DhtClient(init)
    this.#contacts = new Contacts(init.network, () => {
      this.#peersCame = true
      this.#wake?.()
      if (this.#hasMet || this.#queue === undefined) return
      this.#hasMet = true
      this.#background(this.#lookAround())
    })
    this.#phase = fraction(kadIdOfPeer(init.network.peerId))
  }

  async start (): Promise<void> {
    this.#stopped = new AbortController()
    this.#hasMet = false
    const queue = this.#queue ??= new AnnounceQueue(this.#init.queueFile, this.#init.logger)
    this.#init.network.services.records.claim(digest => queue.has(digest))
    await this.#contacts.start()
    this.#background(this.#run(queue))
    if (this.#changes.length > 0) this.#background(this.#apply(queue))
  }

  async stop (): Promise<void> {
    this.#stopped.abort()
    this.#wake?.()
    this.#contacts.stop()
    await Promise.all(this.#running)
    this.#client.close()
    this.#init.network.services.records.claim(() => false)
    if (this.#queue !== undefined) this.#applyLast(this.#queue)
    this.#queue?.close()
    this.#queue = undefined
  }

  announce (cids: Iterable<CID>, options: AnnounceOptions = {}): void {
    const list = Array.from(cids)
    this.#change({ kind: 'announce', cids: list })
    if (options.urgent !== true) return
    for (const cid of list.slice(0, ANNOUNCE_URGENT_MAX)) {
      const key = cid.toString()
      if (this.#urgent.size >= ANNOUNCE_URGENT_MAX || this.#urgent.has(key) || this.#queue === undefined) continue
      const announcing = this.#announceUrgently(cid, options.thorough === true ? Infinity : URGENT_QUIET).finally(() => { this.#urgent.delete(key) })
      this.#urgent.set(key, announcing)
      this.#background(announcing)
    }
  }

  async sent (cid: CID, { signal }: AbortOptions = {}): Promise<void> {
    // What went wrong was noted, and is tried again in its turn.
    await withSignal((this.#urgent.get(cid.toString()) ?? Promise.resolve()).catch(() => undefined), signal)
  }

  withdraw (cids: Iterable<CID>): void {
    this.#change({ kind: 'withdraw', cids: Array.from(cids) })
  }

  findProviders (cid: CID, options: FindOptions = {}): AsyncIterable<Provider> {
    const { network } = this.#init
    const digest = dhtDigest(cid)
    return findProviders({ network, client: this.#client, self: this.#self }, {
      digest,
      seeds: this.#contacts.nearest(kadIdOfDigest(digest), CLOSEST_PEERS),
      stopped: this.#stopped.signal,
      ...options
    })
  }

  status (): RouterStatus {
    const now = this.#init.clock.now()
    const { keys, backlog, earliestDue } = this.#queue?.counts(now) ?? { keys: 0, backlog: 0, earliestDue: undefined }
    const coming = this.#changes.reduce((sum, change) => sum + (change.kind === 'announce' ? change.cids.length : 0), 0)
    return {
      keys: keys + coming,
      backlog: backlog + coming,
      lagMs: earliestDue === undefined ? 0 : Math.max(0, now - earliestDue),
      announced: this.#announced,
      failed: this.#failed,
      sweptAt: this.#sweptAt
    }
  }

  #change (change: Change): void {
    if (change.cids.length === 0) return
    this.#changes.push(change)
    if (this.#queue !== undefined && this.#changes.length === 1) this.#background(this.#apply(this.#queue))
  }

  /** Writes the changes to the queue, in their order, a slice at a time. */
  async #apply (queue: AnnounceQueue): Promise<void> {
    // Files that become complete one after the other are told of together: a transaction costs more than what is in it.
    await sleep(this.#init.clock, APPLY_AFTER_MS, this.#stopped.signal).catch(() => undefined) // the loop looks at the signal
    while (this.#changes.length > 0 && !this.#stopped.signal.aborted) {
      try {
        this.#applySlice(queue)
      } catch (error) {
        this.#init.logger.warn({ error: asError(error).message }, 'what is to be announced could not be noted, and is tried again')
        await sleep(this.#init.clock, RETRY_FIRST_MS, this.#stopped.signal).catch(() => undefined) // the loop looks at the signal
      }
      if (this.#changes.length > 0) await new Promise(resolve => { setImmediate(resolve) })
    }
  }

  /** At the end: as much as a moment allows. What is left to announce the node announces when it starts; nobody would withdraw again. */
  #applyLast (queue: AnnounceQueue): void {
    const until = this.#init.clock.monotonic() + LAST_CHANGES_MS
    while (this.#changes.length > 0) {
      try {
        if (this.#init.clock.monotonic() < until || this.#changes[0]?.kind === 'withdraw') this.#applySlice(queue)
        else this.#changes.shift()
      } catch (error) {
        this.#init.logger.warn({ error: asError(error).message }, 'what is to be announced could not be noted')
        this.#changes.shift()
      }
    }
  }

  #applySlice (queue: AnnounceQueue): void {
    const kind = this.#changes[0]?.kind
    if (kind === undefined) return
    const cids: CID[] = []
    let whole = 0 // changes of which nothing is left
    for (const change of this.#changes) {
      if (change.kind !== kind || cids.length >= SLICE_KEYS) break
      const part = change.cids.slice(-(SLICE_KEYS - cids.length))
      cids.push(...part)
      if (part.length === change.cids.length) whole++
    }
    const digests = cids.map(dhtDigest)
    if (kind === 'withdraw') {
      queue.remove(digests)
    } else if (kind === 'announced') {
      queue.done(digests.map(digest => ({ digest, kadId: kadIdOfDigest(digest) })), place => this.#dueAgain(place))
    } else {
      queue.add(digests, this.#init.clock.now())
      this.#keysCame = true
    }
    // Not before: what throws above is tried again.
    const left = digests.length - this.#changes.slice(0, whole).reduce((sum, change) => sum + change.cids.length, 0)
    this.#changes.splice(0, whole)
    const cut = this.#changes[0]
    if (left > 0 && cut !== undefined) cut.cids.length -= left
    if (whole > 0 && this.#keysCame) this.#wake?.()
  }

  async #announceUrgently (cid: CID, quiet: number): Promise<void> {
    const digest = dhtDigest(cid)
    const nearest = this.#contacts.nearest(kadIdOfDigest(digest), CLOSEST_PEERS)
    if (nearest.length === 0) return // it is in the queue, which a first peer wakes
    const components = { ...this.#sweepComponents(), closest: async (digest: Uint8Array, signal: AbortSignal) => await this.#closest(digest, signal, { quiet }) }
    const ok = await announceOne(components, digest, nearest, this.#stopped.signal)
    if (!ok) { this.#failed++; return }
    this.#announced++
    this.#change({ kind: 'announced', cids: [cid] })
  }

  /**
   * Meets those around this node. kad-dht looks for them a second after its start, when a node that starts slowly is connected to nobody yet, or to
   * one who knows only those that came before, and then not for five minutes.
   */
  async #lookAround (): Promise<void> {
    const { network, clock, logger } = this.#init
    const { signal } = this.#stopped
    for (const delayMs of LOOK_AROUND_MS) {
      try {
        await sleep(clock, delayMs, signal)
        // Whom it asks it connects to, which is all that is wanted.
        const looking = network.services.dht.getClosestPeers(network.peerId.toMultihash().bytes, { signal: AbortSignal.any([signal, AbortSignal.timeout(LOOK_AROUND_TIMEOUT_MS)]) })
        for await (const _ of looking) if (signal.aborted) return
      } catch (error) {
        if (signal.aborted) return
        logger.debug({ error: asError(error).message }, 'a look around found nothing')
      }
    }
  }

  /** The one loop: waits until something is due and a peer is there, passes through what is due, and waits longer after failures. */
  async #run (queue: AnnounceQueue): Promise<void> {
    const { clock, logger, settings } = this.#init
    const { signal } = this.#stopped
    const sweep = new Sweep(this.#sweepComponents(), {
      concurrency: settings.concurrency,
      dueAgain: place => this.#dueAgain(place),
      onAnnounced: count => { this.#announced += count },
      onFailed: count => { this.#failed += count }
    })
    const passEveryMs = settings.periodMs / PASSES_PER_PERIOD
    let retryMs = 0
    let passedAt = Number.NEGATIVE_INFINITY
    while (!signal.aborted) {
      try {
        queue.clamp(clock.now() + settings.periodMs, clock.now())
        if (!await this.#untilDue(queue, retryMs, passedAt + passEveryMs, signal)) continue
        const horizon = clock.now() + passEveryMs
        passedAt = clock.monotonic()
        const { failed } = await sweep.pass(horizon, signal)
        retryMs = failed === 0 ? 0 : Math.min(RETRY_MAX_MS, Math.max(RETRY_FIRST_MS, retryMs * 2))
        if (failed === 0 && queue.keys > 0 && queue.backlog(clock.now()) === 0) this.#sweptAt = clock.now()
      } catch (error) {
        if (signal.aborted) return
        retryMs = Math.min(RETRY_MAX_MS, Math.max(RETRY_FIRST_MS, retryMs * 2))
        logger.warn({ error: asError(error).message, retryMs }, 'announcing failed and is tried again')
        await sleep(clock, RETRY_FIRST_MS, signal).catch(() => undefined) // the loop looks at the signal
      }
    }
  }

  /**
   * Waits until a pass is worth it: there are peers, and something is due. After failures not before `retryMs` have
   * passed, unless a new peer came; keys that merely grew due wait for `notBefore`, so that a pass has many. False when
   * there is something else to look at first: the signal, or the clock.
   */
  async #untilDue (queue: AnnounceQueue, retryMs: number, notBefore: number, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#init
    const retryAt = clock.monotonic() + retryMs
    const checkAt = clock.monotonic() + CLOCK_CHECK_MS
    for (;;) {
      const now = clock.monotonic()
      if (signal.aborted || now >= checkAt) return false
      const earliestDue = !this.#contacts.ready ? undefined : queue.earliestDue()
      let waitMs = checkAt - now
      if (earliestDue !== undefined) {
        const restMs = retryMs > 0 ? retryAt - now : this.#keysCame ? 0 : notBefore - now
        const dueMs = Math.max(earliestDue - clock.now(), this.#peersCame ? 0 : restMs)
        if (dueMs <= 0) break
        waitMs = Math.min(waitMs, dueMs)
      }
      await this.#sleep(waitMs, signal)
    }
    this.#keysCame = false
    this.#peersCame = false
    await sleep(clock, GATHER_MS, signal).catch(() => undefined) // the loop looks at the signal
    return !signal.aborted
  }

  /** Sleeps until then, or until something wakes it. */
  async #sleep (delayMs: number, signal: AbortSignal): Promise<void> {
    const woken = new AbortController()
    this.#wake = () => { woken.abort() }
    await sleep(this.#init.clock, delayMs, AbortSignal.any([woken.signal, signal])).catch(() => undefined) // woken
    this.#wake = undefined
  }

  /**
   * Each key has its time in the period, by its place: so a pass finds neighbours due together, which go to the same
   * peers, and the load is even. At most a period from now.
   */
  #dueAgain (kadId: Uint8Array): number {
    const { clock, settings: { periodMs } } = this.#init
    const now = clock.now()
    const turn = ((fraction(kadId) + this.#phase) % 1) * periodMs
    const late = (now + periodMs - turn) % periodMs
    // Due again almost at once would be waste; a tenth of the period is not.
    return Math.floor(periodMs - late < periodMs / 10 ? now + periodMs : now + periodMs - late)
  }

  #sweepComponents (): SweepComponents {
    const { clock, random, logger } = this.#init
    const queue = this.#queue
    if (queue === undefined) throw new TypeError('the router is not started')
    return { queue, client: this.#client, clock, random, logger, closest: async (digest, signal, onCutShort) => await this.#closest(digest, signal, onCutShort === undefined ? {} : { onCutShort }) }
  }

  async #closest (digest: Uint8Array, signal: AbortSignal, more: Pick<LookupInit, 'quiet' | 'onCutShort'>): Promise<Contact[]> {
    const target = kadIdOfDigest(digest)
    return await lookup({
      ...more,
      target,
      seeds: this.#contacts.nearest(target, CLOSEST_PEERS),
      self: this.#self,
      signal,
      ask: async (contact, signal) => (await this.#client.findNode(contact, digest, signal)).closer
    })
  }

  /** Keeps track of work under way, which stop() waits for. */
  #background (work: Promise<void>): void {
    const running = work.catch(error => {
      if (!this.#stopped.signal.aborted) this.#init.logger.error({ error: asError(error).message }, 'background work of the router failed')
    }).finally(() => { this.#running.delete(running) })
    this.#running.add(running)
  }
}

/** A place as a number in [0, 1). */
function fraction (kadId: Uint8Array): number {
  return new DataView(kadId.buffer, kadId.byteOffset).getUint32(0) / 0x1_0000_0000
}
