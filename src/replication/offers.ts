import { REPLICA_CANDIDATE_LOOKS_MAX } from '../base/index.ts'
import { addStranger, exchangeId, type Context } from './context.ts'
import { isFetching, pick, pullTimeoutMs, type Candidate, type Need, type ShardLook, type Why } from './planner.ts'
import { toldPolicies } from './policies.ts'
import { highest, nameHash, type Ranked } from './rendezvous.ts'
import type { Peer } from './peer-table.ts'
import { FAILED_MAX, type ModelView, type ShardState } from './model-view.ts'
import type { DeclineReason, ReplicaMessage } from './types.ts'

interface OpenOffer { id: string, view: ModelView, shard: number, to: string, urgent: boolean, accepted: boolean, until: number }

/** One shard that needs somebody, as the planner found it. */
export interface Task { view: ModelView, shard: number, look: ShardLook, need: Need }

const OFFER_TIMEOUT_MS = 10_000
const BUSY_MS = 2_000
const NO_ANSWER_MS = 60_000
const ABANDONED_SUSPECT = 3
const ABANDONED_MAX_MS = 60 * 60_000
/** Of so many offers in a row nothing came: others are asked for a while, and for twice that after each more. */
const FAILING_OFFERS = 2
const FAILING_MS = 60_000
const FAILING_MAX_MS = 10 * 60_000
const DECLINED_MS = 5 * 60_000
/** Peers asked for their free space for one shard: as many as a DHT lookup ends with. */
const PROBED_MAX = 16
const PROBE_TTL_MS = 2 * 60_000
const PROBE_WAIT_MS = 2_000
const NEXT_LOOKS_MS = 1_000
/** Last copies do not wait for other offers, within reason, nor others for them. */
const URGENT_OFFERS_MAX = 64

const ORDER: readonly Why[] = ['last-copy', 'below-min', 'drain', 'below-target', 'spread']

/** Finds a new holder for each shard that needs one: asks around for space, offers, and waits for what was accepted. */
export class Offers {
  readonly #context: Context
  readonly #probe: (peer: Peer) => void
  readonly #open = new Map<string, OpenOffer>()
  readonly #byShard = new Map<string, Set<OpenOffer>>()
  /** As of this round of offers. */
  #reachable: Ranked[] | undefined
  /** Nobody was found for these, and not all of the others have had their turn yet. */
  readonly #lookedAt = new Set<ShardState>()

  constructor (context: Context, probe: (peer: Peer) => void) {
    this.#context = context
    this.#probe = probe
  }

  get size (): number { return this.#open.size }

  /** Open offers of a shard to peers that do not say themselves that they are fetching it, or are not believed any more. */
  offered (view: ModelView, shard: number): number {
    if (this.#byShard.size === 0) return 0
    let count = 0
    for (const { to } of this.#byShard.get(key(view, shard)) ?? []) {
      const claim = view.claims.get(to)
      if (claim === undefined || !(isFetching(view, claim, shard, this.#context.now) || claim.committed.has(shard))) count++
    }
    return count
  }

  /** Asks those for their space of whom nothing is known: they came since. */
  lookAround (): void {
    const { now, ports, peers, strangers, self } = this.#context
    const unknown = ports.reachable().filter(id => id !== self.id && peers.get(id) === undefined && !strangers.has(id))
    for (const id of unknown.slice(0, PROBED_MAX)) {
      const peer = this.#stranger(id)
      peer.probedAt = now
      this.#probe(peer)
    }
  }

  /**
   * Makes the most urgent offers that are due, those that take more looking than one tick has time for at the next ones: each time the most urgent
   * first of those that have not had their turn.
   */
  make (tasks: Task[]): void {
    const { now, settings, wake } = this.#context
    let looks = 0
    this.#reachable = undefined
    tasks.sort((a, b) => a.look.replicas - b.look.replicas || ORDER.indexOf(a.need.why) - ORDER.indexOf(b.need.why))
    for (const task of tasks) {
      const state = task.view.states[task.shard]
      if (state === undefined || this.#lookedAt.has(state)) continue
      const dueAt = Math.max(task.need.dueAt, state.offerAt)
      if (dueAt > now) { wake(dueAt); continue }
      const urgent = isUrgent(task)
      const max = urgent ? URGENT_OFFERS_MAX : settings.offersMax
      for (let left = task.need.wanted; left > 0; left--) {
        const open = [...this.#open.values()].filter(offer => offer.urgent === urgent)
        if (open.length >= max) { wake(now + 1_000); break }
        if (looks++ >= REPLICA_CANDIDATE_LOOKS_MAX) { wake(now + NEXT_LOOKS_MS); return }
        // Half of them is for one peer at most: it may get nothing of what it takes.
        const isFree = ({ id, failingUntil }: Peer): boolean => open.filter(({ to }) => to === id).length < max / 2 && (urgent || now >= failingUntil)
        if (this.#offerOne(task, isFree)) continue
        this.#lookedAt.add(state)
        break
      }
    }
    this.#lookedAt.clear()
  }

  accepted (from: string, { id }: Extract<ReplicaMessage, { type: 'accept' }>): void {
    const offer = this.#open.get(id)
    if (offer === undefined || offer.to !== from || offer.accepted) return
    offer.accepted = true
    offer.until = this.#context.now + pullTimeoutMs(offer.view.bytes[offer.shard] ?? 0)
  }

  declined (from: string, { id, reason }: Extract<ReplicaMessage, { type: 'decline' }>): void {
    const offer = this.#open.get(id)
    if (offer === undefined || offer.to !== from) return
    this.#context.ports.note({ type: 'declined', model: offer.view.cid, shard: offer.shard, by: from, reason })
    this.#end(offer, this.#backOff(reason))
    const peer = this.#peer(from)
    if (peer === undefined) return
    if (reason === 'busy') peer.busyUntil = this.#context.now + BUSY_MS
    if (reason === 'space') peer.freeBytes = 0
  }

  /** It said what came of it: its bytes are there, or will not be. */
  settled (from: string, view: ModelView, shard: number, ok: boolean): void {
    for (const offer of this.#byShard.get(key(view, shard)) ?? []) {
      if (offer.to !== from) continue
      this.#end(offer, ok ? 0 : NO_ANSWER_MS)
      this.#judgePeer(from, ok)
      this.#judge(view, shard, ok)
    }
  }

  /** When one after the other cannot fetch what is offered, what is offered may be bad. */
  #judge (view: ModelView, shard: number, ok: boolean): void {
    const state = view.states[shard]
    if (state === undefined) return
    state.abandoned = ok ? 0 : state.abandoned + 1
    if (state.abandoned < ABANDONED_SUSPECT) return
    this.#context.ports.scrub(view.cid, shard)
    state.offerAt = this.#context.now + Math.min(ABANDONED_MAX_MS, NO_ANSWER_MS * 2 ** (state.abandoned - ABANDONED_SUSPECT))
  }

  /** Who takes everything and gets nothing would hold up whatever somebody else could have. */
  #judgePeer (id: string, ok: boolean): void {
    const peer = this.#peer(id)
    if (peer === undefined) return
    peer.offersFailed = ok ? 0 : peer.offersFailed + 1
    const times = peer.offersFailed - FAILING_OFFERS
    peer.failingUntil = times < 0 ? -Infinity : this.#context.now + Math.min(FAILING_MAX_MS, FAILING_MS * 2 ** times)
  }

  /** Gives up those that were not answered, or whose peer is gone. */
  expire (): void {
    const { now, peers, wake } = this.#context
    for (const offer of this.#open.values()) {
      const peer = peers.get(offer.to)
      if (offer.view.claims.get(offer.to)?.committed.has(offer.shard) === true) {
        this.#end(offer, 0)
        this.#judgePeer(offer.to, true)
      } else if (peer?.liveness === 'down' || peer?.leaving === true) {
        this.#end(offer, NO_ANSWER_MS)
      } else if (now >= offer.until) {
        this.#end(offer, NO_ANSWER_MS)
        this.#judgePeer(offer.to, false)
      } else {
        wake(offer.until)
      }
    }
  }

  #offerOne (task: Task, isFree: (peer: Peer) => boolean): boolean {
    const { view, shard, look, need } = task
    const { now, random, ports, self } = this.#context
    const holders = [...look.proven, ...look.claimed, ...look.pending, ...(look.own ? [self] : [])]
    for (const { to } of this.#byShard.get(key(view, shard)) ?? []) {
      const peer = this.#peer(to)
      if (peer !== undefined && !holders.includes(peer)) holders.push(peer)
    }
    const candidates = this.#candidates(view, shard, holders)
    const chosen = pick(view, shard, holders, candidates.filter(({ peer }) => isFree(peer) && (need.fits?.(peer, holders) ?? true)))
    if (chosen === undefined) return false
    const { peer } = chosen
    const id = exchangeId(random)
    const offer: OpenOffer = { id, view, shard, to: peer.id, urgent: isUrgent(task), accepted: false, until: now + OFFER_TIMEOUT_MS }
    this.#open.set(id, offer)
    const offers = this.#byShard.get(key(view, shard))
    if (offers === undefined) this.#byShard.set(key(view, shard), new Set([offer]))
    else offers.add(offer)
    const state = view.states[shard]
    if (state !== undefined) state.offeredAt = now
    const bytes = view.bytes[shard] ?? 0
    if (!chosen.cached) peer.freeBytes = Math.max(0, peer.freeBytes - bytes)
    this.#context.wake(offer.until)
    need.made?.()
    ports.note({ type: 'offered', model: view.cid, shard, to: peer.id, why: need.why })
    ports.send(peer.id, {
      type: 'offer',
      id,
      model: view.cid,
      shard,
      shards: view.shards,
      bytes,
      urgent: offer.urgent,
      policies: toldPolicies(view.policies, self.id),
      holders: [...look.proven, ...look.draining].map(holder => holder.id)
    })
    return true
  }

  #candidates (view: ModelView, shard: number, holders: readonly Peer[]): Candidate[] {
    const { now, self } = this.#context
    const bytes = view.bytes[shard] ?? 0
    const state = view.states[shard]
    const candidates: Candidate[] = []
    let waiting = false
    for (const peer of this.#nearest(view, shard)) {
      if (peer === self || holders.includes(peer) || peer.liveness !== 'alive') continue
      if (peer.stateAt === undefined || now - peer.stateAt > PROBE_TTL_MS) {
        // Who does not answer is passed over, for as long as an answer would count.
        if (now - peer.probedAt >= PROBE_TTL_MS) {
          peer.probedAt = now
          this.#probe(peer)
        }
        waiting ||= now - peer.probedAt < PROBE_WAIT_MS
        continue
      }
      if (peer.draining || peer.leaving || now < peer.busyUntil) continue
      const until = state?.declined.get(peer.id)
      if (until !== undefined && now < until) continue
      const claim = view.claims.get(peer.id)
      if (claim?.committed.has(shard) === true || claim?.pending.has(shard) === true || (claim?.failed[shard] ?? 0) >= FAILED_MAX) continue
      const cached = claim?.cached.has(shard) === true
      if (peer.freeBytes < bytes) continue
      candidates.push({ peer, cached })
    }
    this.#context.wake(now + PROBE_WAIT_MS)
    // Their answers may show a better one.
    return waiting ? [] : candidates
  }

  /** Those who hold something of the model, and the nearest of the others to the shard. */
  #nearest (view: ModelView, shard: number): Peer[] {
    const { ports, peers, strangers, self } = this.#context
    this.#reachable ??= ports.reachable().map(id => ({ id, hash: (peers.get(id) ?? strangers.get(id))?.hash ?? nameHash(id) }))
    const near = highest(view.hash, shard, this.#reachable, { count: PROBED_MAX, except: id => id === self.id || view.claims.has(id) })
    const nearest: Peer[] = []
    for (const id of view.claims.keys()) {
      const peer = peers.get(id)
      if (peer !== undefined) nearest.push(peer)
    }
    for (const { id } of near) nearest.push(peers.get(id) ?? this.#stranger(id))
    return nearest
  }

  #stranger (id: string): Peer {
    const { strangers, peers, now } = this.#context
    const known = strangers.get(id)
    if (known !== undefined) return known
    const peer = peers.make(id, now)
    addStranger(this.#context, peer)
    return peer
  }

  #peer (id: string): Peer | undefined { return this.#context.peers.get(id) ?? this.#context.strangers.get(id) }

  #backOff (reason: DeclineReason): number {
    switch (reason) {
      case 'busy': return BUSY_MS
      case 'held': return NO_ANSWER_MS
      default: return DECLINED_MS
    }
  }

  #end (offer: OpenOffer, backOffMs: number): void {
    this.#open.delete(offer.id)
    const offers = this.#byShard.get(key(offer.view, offer.shard))
    offers?.delete(offer)
    if (offers?.size === 0) this.#byShard.delete(key(offer.view, offer.shard))
    if (backOffMs > 0) offer.view.states[offer.shard]?.declined.set(offer.to, this.#context.now + backOffMs)
    this.#context.touch(offer.view)
  }
}

function isUrgent ({ look }: Task): boolean { return look.replicas <= 1 }

function key (view: ModelView, shard: number): string { return `${view.cid}/${shard}` }
