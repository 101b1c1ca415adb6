import { challengeSeed } from './challenge.ts'
import { Circle } from './circle.ts'
import { isSpare, keepsModel } from './eviction.ts'
import { Doubts } from './doubts.ts'
import { Handover } from './handover.ts'
import { Holding } from './holding.ts'
import { Own, type ModelView } from './model-view.ts'
import { Looks } from './looks.ts'
import { Models } from './models.ts'
import { Offers, type Task } from './offers.ts'
import { Peer, PeerTable } from './peer-table.ts'
import { effectivePolicy, mergePolicies } from './policies.ts'
import { PolicySaves } from './policy-saves.ts'
import { Proofs } from './proofs.ts'
import { Rebalance } from './rebalance.ts'
import { Rebuild } from './rebuild.ts'
import { States } from './states.ts'
import { drainStatus, holdersOf, modelStatuses, sumOf } from './report.ts'
import { Upkeep } from './upkeep.ts'
import type { Context } from './context.ts'
import type {
  DeclineReason, DrainStatus, LocalModel, ModelReplication, Policy, PolicyRecord, ReplicaMessage, ReplicatorInit, ShardStatus
} from './types.ts'

export type { ReplicatorInit }

/** While something is going on, look again at least this often. */
const BUSY_LOOK_MS = 5_000
const IDLE_LOOK_MS = 10 * 60_000
/** How soon a newcomer is noticed by who could use one. */
const AROUND_EVERY_MS = 30_000
/** The view may never come to rest where peers come and go: it counts as settled after so many times the wait. */
const SETTLE_TIMES_MAX = 10

/**
 * Keeps each shard of each pinned model at its target number of proven replicas, together with the replicators of
 * the other nodes and with no master. Level-triggered: messages and events only change what is known and mark it
 * for a look; tick() looks at what is marked or due, and acts on what is so now. What failed is simply still needed at the next tick.
 *
 * Pure: time comes with each call, everything else goes through the ports. scripts/sim runs thousands of these.
 */
export class Replicator {
  readonly #context: Context
  readonly #doubts = new Doubts()
  readonly #holding: Holding
  readonly #policies: PolicySaves
  readonly #states: States
  readonly #proofs: Proofs
  readonly #offers: Offers
  readonly #rebalance: Rebalance
  readonly #handover: Handover
  readonly #models: Models
  readonly #circle: Circle
  readonly #upkeep: Upkeep
  readonly #looks: Looks
  readonly #rebuild: Rebuild
  readonly #ledgerLostMs: number | undefined
  #dirty = true
  #wakeAt = -Infinity
  #aroundAt = -Infinity
  #startedAt = 0
  #changedAt = 0
  #drainSince = -Infinity

  constructor ({ self, labels, settings, random, ports, commitments, policies, ledgerLostMs, looksMax }: ReplicatorInit) {
    const peers = new PeerTable(settings, {
      heardAt: ports.heardAt,
      ask: (observer, about) => { ports.send(observer, { type: 'ask', peer: about }) },
      changed: (peer, from) => {
        ports.note({ type: 'peer', peerId: peer.id, from, to: peer.liveness })
        this.#context.viewChanged()
        this.#context.touchPeer(peer.id)
        this.#dirty = true
      },
      brake: on => { ports.note({ type: 'brake', on }); this.#touchAll() }
    })
    const own = new Peer(self, 0)
    own.labels = labels
    this.#context = {
      self: own,
      settings,
      // Whoever doubts a shard here, it is looked at once in a while.
      ports: { ...ports, scrub: (model, shard) => { if (this.#doubts.mayLook(model, shard, this.#context.now)) ports.scrub(model, shard) } },
      random,
      peers,
      views: new Map(),
      strangers: new Map(),
      now: 0,
      draining: false,
      inHaste: false,
      settled: false,
      looking: undefined,
      touch: view => { this.#dirty = true; view?.wake(-Infinity) },
      touchPeer: id => { for (const view of this.#context.views.values()) if (view.concerns(id)) this.#context.touch(view) },
      changed: view => {
        view?.changed()
        this.#context.touch(view)
        this.#states.changed(view)
      },
      viewChanged: () => { this.#changedAt = this.#context.now },
      met: (view, peerId, by) => { this.#circle.met(view, peerId, by) },
      wake: at => {
        this.#context.looking?.wake(at)
        if (at < this.#wakeAt) this.#wakeAt = at
      }
    }
    this.#holding = new Holding(this.#context)
    this.#policies = new PolicySaves(this.#context)
    this.#states = new States(this.#context, { holding: this.#holding, policies: this.#policies })
    this.#proofs = new Proofs(this.#context)
    this.#offers = new Offers(this.#context, peer => { this.#states.probe(peer) })
    this.#rebalance = new Rebalance(this.#context, this.#holding)
    this.#handover = new Handover(this.#context, { holding: this.#holding, proofs: this.#proofs, rebalance: this.#rebalance })
    this.#models = new Models(this.#context, this.#holding, { commitments, policies })
    this.#rebuild = new Rebuild(this.#context, this.#holding)
    this.#ledgerLostMs = ledgerLostMs
    this.#circle = new Circle(this.#context, { models: this.#models, states: this.#states, rebuild: this.#rebuild })
    this.#upkeep = new Upkeep(this.#context, { holding: this.#holding, offers: this.#offers, rebalance: this.#rebalance, handover: this.#handover })
    this.#looks = new Looks(this.#context, { circle: this.#circle, proofs: this.#proofs, upkeep: this.#upkeep, rebuild: this.#rebuild, states: this.#states }, looksMax)
  }

  get brake (): boolean { return this.#context.peers.brake }
  get settled (): boolean { return this.#context.settled }
  get draining (): boolean { return this.#context.draining }
  /** It drains, and waits for nobody who may come back. */
  get inHaste (): boolean { return this.#context.inHaste }
  get committedBytes (): number { return sumOf(this.#context.views.values(), Own.Committed) }
  get pendingBytes (): number { return sumOf(this.#context.views.values(), Own.Pulling, Own.Broken) }
  /** Models that are here since before the ledger was lost, and of which it is not known yet what was promised. */
  get rebuilding (): number { return this.#rebuild.left }
  /** Something was left for the next tick. */
  get isBehind (): boolean { return this.#looks.isBehind || this.#states.isBehind }
  get pulling (): number { return this.#holding.pulling }
  /** Bytes of the donation that are promised or on their way. */
  get promisedBytes (): number { return this.#holding.bytes(Own.Committed, Own.Pulling, Own.Broken) }

  /** The first call, after all models that are here were told by model(). */
  start (now: number): void {
    this.#context.now = now
    this.#startedAt = this.#changedAt = now
    const wanted = [...this.#context.views.values()].some(view => view.policy.target > 0)
    if (this.#ledgerLostMs !== undefined) this.#rebuild.start(this.#ledgerLostMs)
    // Nothing was promised: there is nothing to come back to.
    this.#context.settled = !this.#models.start() && !wanted && this.#rebuild.left === 0
  }

  /** Call it each second or so; cheap when nothing is due. */
  tick (now: number): void {
    const context = this.#context
    context.now = now
    context.peers.poll(now)
    if (!context.settled) this.#settle()
    if (this.#rebalance.isCramped && now >= this.#aroundAt) {
      this.#aroundAt = now + AROUND_EVERY_MS
      this.#offers.lookAround()
    }
    if (!this.#dirty && now < this.#wakeAt) return
    this.#dirty = false
    this.#wakeAt = now + IDLE_LOOK_MS
    try {
      this.#act()
    } catch (error) {
      this.#touchAll() // the rest is still to be done
      throw error
    }
  }

  #act (): void {
    const context = this.#context
    this.#policies.save()
    this.#circle.regroup()
    this.#rebuild.tick()
    this.#holding.tick()
    this.#proofs.expire()
    this.#offers.expire()
    this.#handover.expire()
    this.#upkeep.begin()
    const tasks: Task[] = []
    this.#looks.tick(tasks)
    this.#offers.make(tasks)
    this.#looks.settle(tasks)
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
        // Who does not watch it has nothing to say of it, and who knows that it stopped says since when, whatever of it came late.
        const asked = peers.get(message.peer)
        const heardAt = asked?.leaving === true ? asked.leftAt : asked === undefined ? undefined : ports.heardAt(message.peer)
        if (heardAt !== undefined) ports.send(from, { type: 'seen', peer: message.peer, ageMs: Math.max(0, Math.round(now - heardAt)) })
        break
      }
      case 'seen': peers.seen(from, message.peer, message.ageMs, now); break
      case 'offer': this.#offered(from, message); break
      case 'accept': this.#offers.accepted(from, message); this.#context.touch(views.get(message.model)); break
      case 'decline': this.#offers.declined(from, message); break
      case 'commit': case 'abandon': {
        const view = views.get(message.model)
        if (view === undefined || message.shard >= view.shards) break
        this.#context.met(view, from, from)
        view.ended(from, message.shard, message.type === 'commit', view.hearing(now, this.#context.settings.proofTtlMs))
        this.#offers.settled(from, view, message.shard, message.type === 'commit')
        this.#context.touch(view)
        break
      }
      case 'challenge': this.#challenged(from, message); break
      case 'proof': this.#proofs.answered(from, message); break
      case 'disproved': {
        const own = views.get(message.model)?.own[message.shard]
        if ((own === Own.Committed || own === Own.Held) && this.#doubts.mayDispute(from, message.model, message.shard, now)) ports.scrub(message.model, message.shard)
        break
      }
      case 'release': this.#handover.requested(from, message); break
      case 'keep': this.#handover.answered(from, message); break
    }
  }

  /** A model is in the store: told at start for each, and again when it came or when `kept` changed. */
  model (local: LocalModel, now: number): void {
    this.#context.now = now
    this.#models.told(local)
    this.#context.touch(this.#context.views.get(local.cid))
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
  lost (cid: string, shard: number, now: number): void { this.#on(cid, shard, now, view => { this.#doubts.lost(cid, shard); this.#holding.lost(view, shard) }) }

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
    if (view === undefined) return false
    const merged = view.merge([record])
    if (merged.saved.length === 0) return false
    this.#context.ports.savePolicies(merged)
    view.adopt(merged)
    view.findAt = -Infinity
    view.metAt = now
    this.#context.changed(view)
    return true
  }

  policyOf (cid: string): Policy | undefined { return this.#context.views.get(cid)?.policy }

  /** What this node itself said last of how many there shall be. */
  saidOf (cid: string): Policy | undefined { return this.#models.saidOf(cid) }

  nextSequence (cid: string, seconds: number): number { return this.#models.nextSequence(cid, seconds) }

  /** `inHaste`: nothing waits for holders that are away and may come back; else for as long as one may be away, from the first call on. */
  drain (on: boolean, now: number, inHaste = false): void {
    const context = this.#context
    context.now = now
    if (!context.draining) this.#drainSince = now
    const hasty = on && (inHaste || now - this.#drainSince >= context.settings.graceDefaultMs)
    if (context.draining === on && context.inHaste === hasty) return
    context.draining = on
    context.inHaste = hasty
    this.#touchAll()
    context.changed()
  }

  drainStatus (now: number): DrainStatus {
    this.#context.now = now
    return drainStatus(this.#context, this.#context.views.values(), view => this.#rebuild.awaits(view))
  }

  leave (now: number): void {
    this.#context.now = now
    this.#states.leave()
  }

  /** It may not be evicted: something of it is promised, on its way, or the last copy known of what somebody wants. */
  keeps (cid: string): boolean {
    const view = this.#context.views.get(cid)
    return this.#models.awaits(cid) || (view !== undefined && (this.#rebuild.awaits(view) || keepsModel(view, this.#context)))
  }

  /** It is promised to nobody, and not the last copy known of what somebody wants. */
  spare (cid: string, shard: number): boolean {
    const view = this.#context.views.get(cid)
    return view === undefined ? !this.#models.awaits(cid) : !this.#rebuild.awaits(view) && isSpare(view, shard, this.#context)
  }

  models (now: number): ModelReplication[] {
    this.#context.now = now
    return modelStatuses(this.#context.views.values(), this.#context, (view, shard) => this.#holding.bytesLeft(view, shard))
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

  #challenged (from: string, { id, model, shards, nonce }: Extract<ReplicaMessage, { type: 'challenge' }>): void {
    const { views, ports, self } = this.#context
    const view = views.get(model)
    if (view?.isForeign !== false) { ports.send(from, { type: 'proof', id, model, digests: shards.map(() => new Uint8Array(0)) }); return }
    // Only who has to do with the model: whoever has not been heard about it is asked first.
    if (!view.claims.has(from) && !view.members.has(from)) { this.#context.met(view, from, from); return }
    ports.prove(model, shards, challengeSeed(nonce, from, self.id), digests => {
      this.#doubts.answered(from, model, shards, this.#context.now)
      ports.send(from, { type: 'proof', id, model, digests })
    }, from)
  }

  #offered (from: string, offer: Extract<ReplicaMessage, { type: 'offer' }>): void {
    const { ports } = this.#context
    const { id, model, shard } = offer
    const taken = this.#take(from, offer)
    if (typeof taken === 'string') { ports.send(from, { type: 'decline', id, model, shard, reason: taken }); return }
    for (const peerId of [from, ...offer.holders]) this.#context.met(taken, peerId, from)
    ports.send(from, { type: 'accept', id, model, shard })
    if (taken.own[shard] === Own.Committed) ports.send(from, { type: 'commit', model, shard })
    this.#context.touch(taken)
  }

  /** What an offer says of a model that nobody here knows may be anything: nothing is made of it, or written, before it is decided. */
  #take (from: string, offer: Extract<ReplicaMessage, { type: 'offer' }>): ModelView | DeclineReason {
    const { views, self } = this.#context
    const { model, policies } = offer
    const spokenOf = views.get(model)
    // Of what is not here yet, nobody knows who is right about its size.
    const known = spokenOf?.isForeign === true && spokenOf.shards !== offer.shards ? undefined : spokenOf
    const reason = this.#holding.refuses(from, offer, known)
    if (reason !== undefined) return reason
    const { records } = mergePolicies(spokenOf?.policies ?? new Map(), [...this.#models.remembered(model), ...this.#policies.read(model, policies)], self.id)
    if (effectivePolicy(records.values()).target === 0) return 'unknown-model'
    if (known === undefined && !this.#models.hasRoom(from)) return 'busy'
    const view = known ?? this.#models.offered(from, offer)
    this.#policies.take(view, policies)
    const notYet = view.policyRefused ? 'space' : 'busy'
    const refused = view.policy.target === 0 ? notYet : this.#holding.take(from, offer, view)
    if (refused === undefined) return view
    if (known === undefined) this.#models.drop(view)
    return refused
  }

  #settle (): void {
    const { now, settings, views } = this.#context
    const quiet = now - this.#changedAt >= settings.settleMs
    if (!quiet && now - this.#startedAt < settings.settleMs * SETTLE_TIMES_MAX) return
    this.#context.settled = true
    for (const view of views.values()) for (const state of view.statesMade) if (state.belowSince !== undefined) state.belowSince = now
    this.#touchAll()
  }

  #touchAll (): void {
    for (const view of this.#context.views.values()) this.#context.touch(view)
    this.#dirty = true
  }
}
