import type { Random } from '../base/index.ts'
import { Handover } from './handover.ts'
import { Holding } from './holding.ts'
import { ModelView, Own } from './model-view.ts'
import { Offers, type Task } from './offers.ts'
import { Peer, PeerTable } from './peer-table.ts'
import { isProven, look, needOf, rankOf } from './planner.ts'
import { Proofs } from './proofs.ts'
import { Rebalance } from './rebalance.ts'
import { States } from './states.ts'
import { holdersOf, modelStatus } from './report.ts'
import { addStranger, type Context } from './context.ts'
import type {
  DeclineReason, DrainStatus, LocalModel, ModelReplication, Policy, PolicyRecord, ReplicaMessage, ReplicaPorts, ReplicationSettings, ShardStatus
} from './types.ts'

export interface ReplicatorInit {
  self: string
  labels: Record<string, string>
  settings: ReplicationSettings
  random: Random
  ports: ReplicaPorts
  /** What save() kept in former lives. */
  commitments: Iterable<{ model: string, shard: number }>
  policies: Iterable<PolicyRecord>
}

/** While something is going on, look again at least this often. */
const BUSY_LOOK_MS = 5_000
const IDLE_LOOK_MS = 10 * 60_000
/** The view may never come to rest where peers come and go: it counts as settled after so many times the wait. */
const SETTLE_TIMES_MAX = 10
const FIND_EVERY_MS = 10 * 60_000
const FIND_ALONE_MS = 30_000
/** A holder that has been down for this long is not coming back. */
const FORGET_DOWN_MS = 24 * 60 * 60_000
/** Peers that are said to have to do with a model and have not been heard about it. */
const MEMBERS_MAX = 256
/** Who said that it has nothing is not asked again sooner, whatever others think: hearsay that comes again and again would hold up repair for ever. */
const WITHOUT_MS = 60_000
const FORGET_MODEL_MS = 10 * 60_000

/**
 * Keeps each shard of each pinned model at its target number of proven replicas, together with the replicators of
 * the other nodes and with no master. Level-triggered: messages and events only change what is known and mark it
 * for a look; tick() looks at everything and acts on what is so now. What failed is simply still needed at the next tick.
 *
 * Pure: time comes with each call, everything else goes through the ports. scripts/sim runs thousands of these.
 */
export class Replicator {
  readonly #context: Context
  readonly #holding: Holding
  readonly #states: States
  readonly #proofs: Proofs
  readonly #offers: Offers
  readonly #rebalance: Rebalance
  readonly #handover: Handover
  readonly #commitments = new Map<string, Set<number>>()
  readonly #policies = new Map<string, PolicyRecord[]>()
  #dirty = true
  #wakeAt = -Infinity
  #watched: ReadonlySet<string> = new Set()
  #startedAt = 0
  #changedAt = 0

  constructor ({ self, labels, settings, random, ports, commitments, policies }: ReplicatorInit) {
    const peers = new PeerTable(settings, {
      heardAt: ports.heardAt,
      ask: (observer, about) => { ports.send(observer, { type: 'ask', peer: about }) },
      changed: (peer, from) => {
        ports.note({ type: 'peer', peerId: peer.id, from, to: peer.liveness })
        this.#context.viewChanged()
        this.#dirty = true
      },
      brake: on => { ports.note({ type: 'brake', on }); this.#dirty = true }
    })
    const own = new Peer(self, 0)
    own.labels = labels
    this.#context = {
      self: own,
      settings,
      ports,
      random,
      peers,
      views: new Map(),
      strangers: new Map(),
      now: 0,
      draining: false,
      settled: false,
      touch: () => { this.#dirty = true },
      changed: () => { this.#dirty = true; this.#states.changed() },
      viewChanged: () => { this.#changedAt = this.#context.now },
      met: (view, peerId) => {
        if (peerId === self || view.claims.has(peerId) || view.members.has(peerId) || view.without.has(peerId) || view.members.size >= MEMBERS_MAX) return
        view.members.set(peerId, this.#context.now)
        view.metAt = this.#context.now
        const peer = peers.get(peerId) ?? this.#context.strangers.get(peerId)
        // What it has heard of this node did not speak of this model; and an answer to that may still come, so it is another version.
        if (peer !== undefined) {
          peer.ackVersion = 0
          peer.tries = 0
          this.#states.changed()
        }
        this.#dirty = true
      },
      wake: at => { if (at < this.#wakeAt) this.#wakeAt = at }
    }
    this.#holding = new Holding(this.#context)
    this.#states = new States(this.#context, this.#holding)
    this.#proofs = new Proofs(this.#context)
    this.#offers = new Offers(this.#context, peer => { this.#states.probe(peer) })
    this.#rebalance = new Rebalance(this.#context, this.#holding)
    this.#handover = new Handover(this.#context, { holding: this.#holding, proofs: this.#proofs, rebalance: this.#rebalance })
    for (const { model, shard } of commitments) {
      const shards = this.#commitments.get(model)
      if (shards === undefined) this.#commitments.set(model, new Set([shard]))
      else shards.add(shard)
    }
    for (const record of policies) this.#policies.set(record.model, [...this.#policies.get(record.model) ?? [], record])
  }

  get brake (): boolean { return this.#context.peers.brake }
  get settled (): boolean { return this.#context.settled }
  get draining (): boolean { return this.#context.draining }
  get committedBytes (): number { return this.#sum(Own.Committed) }
  get pendingBytes (): number { return this.#sum(Own.Pulling, Own.Broken) }
  get pulling (): number { return this.#holding.pulling }
  /** Bytes of the donation that are promised or on their way. */
  get promisedBytes (): number { return this.#holding.bytes(Own.Committed, Own.Pulling, Own.Broken) }

  /** The first call, after all models that are here were told by model(). */
  start (now: number): void {
    this.#context.now = now
    this.#startedAt = this.#changedAt = now
    // Nothing was promised: there is nothing to come back to.
    this.#context.settled = this.#commitments.size === 0 && ![...this.#context.views.values()].some(view => view.policy.target > 0)
    // Of what the store does not know nothing can be kept: a user removed it, and the ledger could not be told before the end of that life.
    for (const [model, shards] of this.#commitments) for (const shard of shards) this.#holding.removed(model, shard)
    this.#commitments.clear()
  }

  /** Call it each second or so; cheap when nothing is due. */
  tick (now: number): void {
    const context = this.#context
    context.now = now
    context.peers.poll(now)
    if (!context.settled) this.#settle()
    if (!this.#dirty && now < this.#wakeAt) return
    this.#dirty = false
    this.#wakeAt = now + IDLE_LOOK_MS
    try {
      this.#act()
    } catch (error) {
      this.#dirty = true // the rest is still to be done
      throw error
    }
  }

  #act (): void {
    const context = this.#context
    this.#regroup()
    this.#holding.tick()
    this.#proofs.expire()
    this.#offers.expire()
    this.#handover.expire()
    const tasks: Task[] = []
    for (const view of context.views.values()) {
      if (view.policy.target === 0) continue
      this.#find(view)
      this.#proofs.tick(view)
      this.#consider(view, tasks)
    }
    this.#offers.make(tasks)
    this.#states.tick()
    if (tasks.length > 0 || this.#offers.size > 0 || !context.settled || context.draining || context.peers.brake) context.wake(context.now + BUSY_LOOK_MS)
  }

  /** A checked message. */
  receive (from: string, message: ReplicaMessage, now: number): void {
    const { views, ports, peers } = this.#context
    this.#context.now = now
    if (from === this.#context.self.id) return
    switch (message.type) {
      case 'state': this.#states.received(from, message); break
      case 'ask': {
        // Who does not watch it has nothing to say of it.
        const heardAt = peers.get(message.peer) === undefined ? undefined : ports.heardAt(message.peer)
        if (heardAt !== undefined) ports.send(from, { type: 'seen', peer: message.peer, ageMs: Math.max(0, Math.round(now - heardAt)) })
        break
      }
      case 'seen': peers.seen(from, message.peer, message.ageMs, now); break
      case 'offer': this.#offered(from, message); break
      case 'accept': this.#offers.accepted(from, message); this.#dirty = true; break
      case 'decline': this.#offers.declined(from, message); break
      case 'commit': case 'abandon': {
        const view = views.get(message.model)
        if (view === undefined || message.shard >= view.shards) break
        this.#context.met(view, from)
        view.ended(from, message.shard, message.type === 'commit', now)
        this.#offers.settled(from, view, message.shard, message.type === 'commit')
        this.#dirty = true
        break
      }
      case 'challenge':
        ports.prove(message.model, message.shards, message.nonce, digests => { ports.send(from, { type: 'proof', id: message.id, model: message.model, digests }) })
        break
      case 'proof': this.#proofs.answered(from, message); break
      case 'disproved': {
        const own = views.get(message.model)?.own[message.shard]
        if (own === Own.Committed || own === Own.Held) ports.scrub(message.model, message.shard)
        break
      }
      case 'release': this.#handover.requested(from, message); break
      case 'keep': this.#handover.answered(from, message); break
    }
  }

  /** A model is in the store: told at start for each, and again when it came or when `kept` changed. */
  model (local: LocalModel, now: number): void {
    this.#context.now = now
    const view = this.#view(local.cid, local.shardBytes.length)
    view.learn(local)
    const held = new Set(local.held)
    const promised = this.#commitments.get(local.cid)
    this.#commitments.delete(local.cid)
    for (let shard = 0; shard < view.shards; shard++) {
      if (promised?.has(shard) === true && view.own[shard] === Own.None) {
        view.own[shard] = held.has(shard) ? Own.Committed : Own.Broken
        this.#context.changed()
      } else if (held.has(shard)) {
        this.#holding.held(view, shard)
      }
    }
    this.#dirty = true
  }

  forget (cid: string, now: number): void {
    const view = this.#context.views.get(cid)
    if (view === undefined) return
    this.#context.now = now
    view.local = false
    view.kept = false
    view.forgottenAt = now
    this.#holding.forget(view)
  }

  /** A shard became complete here. */
  held (cid: string, shard: number, now: number): void { this.#on(cid, shard, now, view => { this.#holding.held(view, shard) }) }

  /** A shard is not complete here any more. */
  lost (cid: string, shard: number, now: number): void { this.#on(cid, shard, now, view => { this.#holding.lost(view, shard) }) }

  pulled (cid: string, shard: number, ok: boolean, now: number): void { this.#on(cid, shard, now, view => { this.#holding.pulled(view, shard, ok) }) }

  /** So much of a shard on its way here is still lacking; told now and then. */
  progress (cid: string, shard: number, bytesLeft: number, now: number): void { this.#on(cid, shard, now, view => { this.#holding.progress(view, shard, bytesLeft) }) }

  found (cid: string, peerIds: string[], now: number): void {
    const view = this.#context.views.get(cid)
    if (view === undefined) return
    this.#context.now = now
    view.searched = true
    for (const id of peerIds) this.#context.met(view, id)
  }

  /** Saves it and tells the others. False when a newer one of its publisher is known, or the model is not. Throws what saving throws; nothing has changed then. */
  setPolicy (record: PolicyRecord, now: number): boolean {
    const view = this.#context.views.get(record.model)
    this.#context.now = now
    if (view?.wants(record) !== true) return false
    this.#context.ports.savePolicy(record)
    view.adopt(record)
    view.findAt = -Infinity
    view.metAt = now
    this.#context.changed()
    return true
  }

  policyOf (cid: string): Policy | undefined { return this.#context.views.get(cid)?.policy }

  nextSequence (cid: string): number {
    const own = this.#context.self.id
    return Math.max(this.#context.views.get(cid)?.policies.get(own)?.sequence ?? 0, ...(this.#policies.get(cid) ?? []).filter(({ publisher }) => publisher === own).map(({ sequence }) => sequence)) + 1
  }

  drain (on: boolean, now: number): void {
    this.#context.now = now
    if (this.#context.draining === on) return
    this.#context.draining = on
    this.#context.changed()
  }

  drainStatus (now: number): DrainStatus {
    this.#context.now = now
    const status: DrainStatus = { left: [], bytesLeft: 0 }
    for (const view of this.#context.views.values()) {
      if (view.policy.target === 0) continue
      for (let shard = 0; shard < view.shards; shard++) {
        const own = view.own[shard]
        if (own !== Own.Committed && own !== Own.Broken && !(own === Own.Held && view.kept)) continue
        const { proven } = look(view, shard, this.#context)
        // Given up, and nobody promised since: it counts as handed over while the others have it.
        if (own === Own.Held && proven.length >= view.policy.target) continue
        status.left.push({ model: view.cid, shard, replicas: proven.length, target: view.policy.target })
        status.bytesLeft += view.bytes[shard] ?? 0
      }
    }
    return status
  }

  leave (now: number): void {
    this.#context.now = now
    this.#states.leave()
  }

  /** It may not be evicted: something of it is promised, on its way, or the last copy known of what somebody wants. */
  keeps (cid: string): boolean {
    const view = this.#context.views.get(cid)
    if (this.#commitments.has(cid) || view?.own.some(own => own >= Own.Pulling) === true) return true
    return view !== undefined && view.policy.target > 0 && view.own.some((own, shard) => own === Own.Held && !this.#othersHave(view, shard))
  }

  /** Claimed is enough: what is cached here was fetched from somebody. */
  #othersHave (view: ModelView, shard: number): boolean {
    for (const [id, claim] of view.claims) {
      const peer = this.#context.peers.get(id)
      if (peer !== undefined && peer.liveness !== 'down' && !peer.leaving && (claim.committed.has(shard) || claim.cached.has(shard))) return true
    }
    return false
  }

  /** It is promised to nobody, and not the last copy known of what somebody wants. */
  spare (cid: string, shard: number): boolean {
    const view = this.#context.views.get(cid)
    if (view === undefined) return !this.#commitments.has(cid)
    if (view.kept || (view.own[shard] !== Own.Held && view.own[shard] !== Own.None)) return false
    return view.policy.target === 0 || [...view.claims].some(([id, claim]) => this.#context.peers.get(id)?.liveness === 'alive' && isProven(claim, shard, this.#context.settings.proofTtlMs, this.#context.now) && claim.committed.has(shard))
  }

  models (now: number): ModelReplication[] {
    this.#context.now = now
    return [...this.#context.views.values()].filter(view => view.policy.target > 0).map(view => modelStatus(view, this.#context, shard => this.#holding.bytesLeft(view, shard)))
  }

  shards (cid: string, now: number): ShardStatus[] | undefined {
    this.#context.now = now
    const view = this.#context.views.get(cid)
    return view === undefined ? undefined : Array.from({ length: view.shards }, (_, shard) => holdersOf(view, shard, this.#context))
  }

  #on (cid: string, shard: number, now: number, change: (view: ModelView) => void): void {
    const view = this.#context.views.get(cid)
    if (view === undefined || shard >= view.shards) return
    this.#context.now = now
    change(view)
  }

  #view (cid: string, shards: number): ModelView {
    let view = this.#context.views.get(cid)
    if (view === undefined) {
      view = new ModelView(cid, shards)
      for (const record of this.#policies.get(cid) ?? []) view.adopt(record)
      this.#policies.delete(cid)
      this.#context.views.set(cid, view)
    }
    return view
  }

  /** What was said of how many there shall be is still so when the model comes back. */
  #drop (view: ModelView): void {
    this.#context.views.delete(view.cid)
    if (view.policies.size > 0) this.#policies.set(view.cid, [...view.policies.values()])
  }

  #offered (from: string, offer: Extract<ReplicaMessage, { type: 'offer' }>): void {
    const { ports, settings, draining, views } = this.#context
    const { id, model, shard } = offer
    const decline = (reason: DeclineReason): void => { ports.send(from, { type: 'decline', id, model, shard, reason }) }
    if (draining) { decline('draining'); return }
    if (settings.donateBytes === 0) { decline('space'); return }
    const known = views.get(model)
    if (known !== undefined && known.shards !== offer.shards) { decline('unknown-model'); return }
    const view = known ?? this.#view(model, offer.shards)
    this.#states.policies(view, offer.policies)
    const reason = view.policy.target === 0 ? 'unknown-model' : this.#holding.take(from, offer, view)
    if (reason !== undefined) {
      if (known === undefined) this.#drop(view)
      decline(reason)
      return
    }
    for (const id of [from, ...offer.holders]) this.#context.met(view, id)
    ports.send(from, { type: 'accept', id, model, shard })
    if (view.own[shard] === Own.Committed) ports.send(from, { type: 'commit', model, shard })
    this.#dirty = true
  }

  #settle (): void {
    const { now, settings, views } = this.#context
    const quiet = now - this.#changedAt >= settings.settleMs
    if (!quiet && now - this.#startedAt < settings.settleMs * SETTLE_TIMES_MAX) return
    this.#context.settled = true
    for (const view of views.values()) for (const state of view.states) if (state.belowSince !== undefined) state.belowSince = now
    this.#dirty = true
  }

  /** Who has to do with which model: those are watched, the others forgotten. */
  #regroup (): void {
    const { views, peers, strangers, now, ports, self } = this.#context
    const group = new Set<string>()
    for (const view of views.values()) {
      if (view.forgottenAt !== undefined && now - view.forgottenAt >= FORGET_MODEL_MS) { this.#drop(view); continue }
      // Nothing is kept of it: all who had to know do by now, and who comes back with it is met again.
      if (view.policy.target === 0 && now - view.metAt >= FORGET_MODEL_MS && view.metAt !== -Infinity) {
        view.claims.clear()
        view.members.clear()
      }
      for (const [id, claim] of view.claims) {
        const peer = peers.get(id)
        const gone = peer?.liveness === 'down' && now - peer.downAt >= FORGET_DOWN_MS
        const empty = claim.committed.count === 0 && claim.pending.count === 0 && claim.cached.count === 0
        if (empty && peer?.stateAt !== undefined) view.without.set(id, now)
        if (gone || (empty && peer?.stateAt !== undefined)) view.claims.delete(id)
        else group.add(id)
      }
      for (const [id, at] of view.without) if (now - at >= WITHOUT_MS) view.without.delete(id)
      for (const id of view.members.keys()) group.add(id)
    }
    group.delete(self.id)
    for (const [id, peer] of peers.peers) {
      if (group.has(id)) continue
      peers.forget(id)
      // What is known of its space still counts.
      if (peer.liveness !== 'down') addStranger(strangers, peer)
    }
    for (const id of group) {
      if (peers.get(id) !== undefined) continue
      peers.track(id, now, strangers.get(id))
      strangers.delete(id)
    }
    if (group.size === this.#watched.size && [...group].every(id => this.#watched.has(id))) return
    this.#watched = group
    ports.watch(group)
  }

  #find (view: ModelView): void {
    const { now, ports, wake, random } = this.#context
    const every = view.claims.size === 0 ? FIND_ALONE_MS : FIND_EVERY_MS
    if (now < view.findAt + every) { wake(view.findAt + every); return }
    view.findAt = now + random.next() * every / 10
    view.askedAt ??= now
    wake(view.findAt + every)
    ports.find(view.cid)
  }

  #consider (view: ModelView, tasks: Task[]): void {
    const { now, ports, draining } = this.#context
    for (let shard = 0; shard < view.shards; shard++) {
      const state = view.states[shard]
      if (state === undefined) continue
      const committed = view.own[shard] === Own.Committed
      // What is added or pinned while this node drains is promised by nobody yet: it is handed over all the same.
      if (!committed && !(draining && view.kept && view.own[shard] === Own.Held)) {
        // Only who has it can tell who else has.
        state.belowSince = undefined
        state.replicas = 0
        this.#adopt(view, shard)
        continue
      }
      const seen = look(view, shard, this.#context)
      if (seen.replicas < state.replicas) state.replicasSince = now
      state.replicas = seen.replicas
      if (seen.replicas >= view.policy.target) {
        if (state.belowSince !== undefined && state.reached) ports.note({ type: 'restored', model: view.cid, shard, ms: now - state.belowSince })
        state.belowSince = undefined
        state.reached = true
      } else {
        state.belowSince ??= now
      }
      const offered = this.#offers.offered(view, shard)
      if (seen.replicas > 1 || seen.pending.length + offered === 0) state.pendingSince = undefined
      else state.pendingSince ??= now
      const need = needOf(view, shard, seen, offered, this.#context) ?? this.#rebalance.need(view, shard, seen, offered)
      if (need !== undefined) tasks.push({ view, shard, look: seen, need })
      if (committed) this.#handover.consider(view, shard, seen)
    }
  }

  /**
   * Nobody is left who promised to keep it, or those who are do nothing about what is lacking, and this node happens to
   * have it: it promises, the first in rank first.
   */
  #adopt (view: ModelView, shard: number): void {
    const { self, peers, settled, draining, settings, now, wake } = this.#context
    const state = view.states[shard]
    if (view.own[shard] !== Own.Held || state === undefined) return
    const { proven, claimed, missing, draining: leaving, pending } = look(view, shard, this.#context)
    const alone = proven.length + claimed.length + leaving.length === 0
    const neglected = proven.length < view.policy.target && this.#holding.freeBytes() >= (view.bytes[shard] ?? 0)
    if (!settled || draining || !view.local || pending.length > 0 || !(alone || neglected)) { state.orphanedSince = undefined; return }
    state.orphanedSince ??= now
    const others = [...view.claims].filter(([, claim]) => claim.cached.has(shard)).map(([id]) => peers.get(id)).filter(peer => peer?.liveness === 'alive' && !peer.draining)
    // Who is up and only does not answer may be behind a bad line; who said goodbye comes back.
    const patienceMs = !alone || missing.some(peer => peer.liveness === 'alive' || peer.leaving) ? settings.graceDefaultMs : 0
    const dueAt = state.orphanedSince + patienceMs + settings.rankDelayMs * (1 + rankOf(view, shard, self, others as Peer[]))
    if (now < dueAt) wake(dueAt)
    else this.#holding.commit(view, shard)
  }

  #sum (...states: Own[]): number {
    let sum = 0
    for (const view of this.#context.views.values()) sum += view.bytesOf(...states)
    return sum
  }
}
