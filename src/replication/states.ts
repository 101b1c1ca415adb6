import { Bitfield, REPLICA_STATE_PARTS_MAX } from '../base/index.ts'
import { addStranger, exchangeId, type Context } from './context.ts'
import { Own, type ModelView } from './model-view.ts'
import { toldPolicies } from './policies.ts'
import { nameHash } from './rendezvous.ts'
import type { Holding } from './holding.ts'
import type { Peer } from './peer-table.ts'
import type { PolicySaves } from './policy-saves.ts'
import type { ModelClaim, ReplicaMessage } from './types.ts'

type State = Extract<ReplicaMessage, { type: 'state' }>
/** A model, also one of which nothing is known here. */
export type Said = Pick<ModelView, 'cid' | 'shards'>

const RETRY_FIRST_MS = 1_000
const RETRY_MAX_MS = 60_000
/** Also when nothing changed: what was lost on the way, in memory or by a bug, is right again after this long. */
const REFRESH_MS = 10 * 60_000
/** A peer that is said to have to do with a model and never says so itself. */
const SILENT_TRIES_MAX = 8
/** Longer than a message and its answer take. */
const ANSWER_MS = 5_000
/** Members named in one message. */
const MEMBERS_TOLD_MAX = 64
/** Of a thousand shards each, half a megabyte. Where there are more, half of that on average, as a model is always in the same part of so many. */
const MODELS_PER_MESSAGE = 64
/** Parts of states that one tick sends: what is in them takes some 10 ms to say. */
const PARTS_PER_TICK = 8
/** That each part takes longer, until all are acknowledged. */
const PART_MS = 50
const UNKNOWN_MAX = 256
const FORMER_MAX = 8
/** What comes of a former life later than this is the present one: a word that came late had been taken for a new life. */
const LATE_MAX_MS = 15 * 60_000

/**
 * Who has what, told by those who have it: each node tells the peers it shares a model with what it holds of it, whenever that changes, until they have
 * acknowledged it. A state names the models that a peer has to be told of, and says nothing of the others. Nothing is passed on but names of peers and
 * signed policies.
 */
export class States {
  readonly #context: Context
  readonly #holding: Holding
  readonly #incarnation: string
  readonly #policies: PolicySaves
  #version = 1
  /** The version as of which what this node says of itself has not changed. */
  #ownVersion = 1
  /** Models of which something else is to be told than before. */
  readonly #changed = new Set<ModelView>()
  #leaving = false
  #isBehind = false

  constructor (context: Context, { holding, policies }: { holding: Holding, policies: PolicySaves }) {
    this.#context = context
    this.#holding = holding
    this.#policies = policies
    this.#incarnation = exchangeId(context.random)
  }

  /** Parts of states are left for the next tick. */
  get isBehind (): boolean { return this.#isBehind }

  /** What this node says of this model, or of itself. */
  changed (view?: ModelView): void {
    if (view !== undefined) { this.#changed.add(view); return }
    this.#ownVersion = ++this.#version
    for (const peer of this.#context.peers.peers.values()) peer.tries = 0
  }

  /** It has to do with this model since now, or is said to. */
  met (peer: Peer, view: ModelView): void {
    peer.owed.set(view, ++this.#version)
    peer.shared++
    peer.tries = 0
  }

  leave (): void {
    this.#leaving = true
    this.#ownVersion = ++this.#version
    this.#spread()
    for (const peer of this.#context.peers.peers.values()) {
      if (peer.liveness === 'down') continue
      // Of a state in parts one: who stops has no time for all of them.
      if (peer.round !== undefined) { this.#answerWithin(peer, peer.round.of); continue }
      const said = this.#toSay(peer)
      this.#say(peer, said.length > MODELS_PER_MESSAGE ? [] : said, { asks: false })
    }
  }

  /** Asks a peer for its state, whatever it shares with this node. */
  probe (peer: Peer): void { this.#send(peer, true) }

  /** Tells those who do not know yet, and asks those of whom nothing is known. */
  tick (): void {
    const { now, peers, strangers, wake } = this.#context
    this.#spread()
    this.#isBehind = false
    let left = PARTS_PER_TICK
    // It asked, and turned out to share nothing with this node: it wants to know of its space all the same.
    for (const peer of strangers.values()) if (peer.wantsReply) this.#send(peer, false)
    for (const peer of peers.peers.values()) {
      if (peer.liveness === 'down') continue
      if (peer.ackFrom === Infinity) this.#owe(peer)
      if (peer.round === undefined || peer.round.left.size === 0) this.#tellIfDue(peer)
      left -= this.#sendParts(peer, left)
      if (peer.round !== undefined && peer.round.left.size > 0) this.#isBehind = true
    }
    if (this.#isBehind) wake(now)
  }

  #tellIfDue (peer: Peer): void {
    const { now, wake } = this.#context
    const isOwed = peer.owed.size > 0 || peer.ackVersion < this.#ownVersion
    const unknown = peer.stateAt === undefined || now - peer.refreshedAt >= REFRESH_MS
    if (!unknown && !peer.wantsReply && !isOwed) { wake(peer.refreshedAt + REFRESH_MS); return }
    const firstMs = RETRY_FIRST_MS + (peer.round?.of ?? 0) * PART_MS
    const at = peer.sentAt + (peer.tries === 0 ? firstMs : Math.min(Math.max(firstMs, RETRY_MAX_MS), firstMs * 2 ** peer.tries))
    if (now < at && !(peer.wantsReply && peer.tries === 0 && now > peer.sentAt)) { wake(at); return }
    if (unknown) this.#refresh(peer)
    // An answer carries the acknowledgement.
    if (now < at && peer.round !== undefined) this.#answerWithin(peer, peer.round.of)
    else this.#send(peer, unknown || isOwed)
    wake(now + RETRY_FIRST_MS)
    if (peer.stateAt === undefined && peer.tries > SILENT_TRIES_MAX) for (const view of this.#context.views.values()) if (view.members.delete(peer.id)) view.circleChanged = true
  }

  /** While all of a state in parts is not acknowledged yet: one of them, again. */
  #answerWithin (peer: Peer, of: number): void {
    this.#say(peer, [...peer.owed.keys()].filter(view => view.concerns(peer.id) && nameHash(view.cid) % of === 0), { asks: false, number: 0 })
  }

  /** Who was told what this node has of it, and then had nothing to say of it (in this life). */
  sift (view: ModelView): void {
    for (const id of view.members.keys()) if (this.#hasAnswered(view, id)) this.#hasNothing(view, id)
    for (const [id, { doubtedAt }] of view.claims) if (doubtedAt !== undefined && this.#hasAnswered(view, id)) this.#hasNothing(view, id)
  }

  #hasNothing (view: ModelView, id: string): void {
    if (view.members.delete(id)) view.circleChanged = true
    if (view.dropClaim(id)) this.#context.viewChanged()
    view.without.set(id, this.#context.now)
  }

  /** Who has acknowledged nothing yet is judged by the time it had. */
  #siftUnheard (peer: Peer): void {
    const { now, views } = this.#context
    if (peer.ackVersion > 0 || now - peer.siftedAt < ANSWER_MS) return
    peer.siftedAt = now
    for (const view of views.values()) {
      const askedSince = view.members.get(peer.id) ?? view.claims.get(peer.id)?.doubtedAt
      if (askedSince !== undefined && peer.sentAt > askedSince && now - askedSince >= ANSWER_MS) this.#hasNothing(view, peer.id)
    }
  }

  /** What it said of the model came no later than its acknowledgement, or in a part of the same state. */
  #hasAnswered (view: ModelView, id: string): boolean {
    const peer = this.#context.peers.get(id)
    return peer !== undefined && peer.ackVersion > 0 && !peer.owed.has(view) && !this.#changed.has(view) && peer.wholeAt >= peer.ackedAt
  }

  received (from: string, state: State): void {
    const { now, peers, strangers, views, settings } = this.#context
    const shares = state.models.some(({ model }) => views.has(model))
    const peer = peers.get(from) ?? (shares ? peers.track(from, now, strangers.get(from)) : strangers.get(from) ?? this.#stranger(from))
    if (shares) strangers.delete(from)
    if (state.incarnation !== peer.incarnation) {
      if (now - (peer.former.get(state.incarnation) ?? -Infinity) < LATE_MAX_MS) return
      peer.former.delete(state.incarnation)
      if (peer.incarnation !== '') {
        peer.former.set(peer.incarnation, now)
        for (const oldest of peer.former.keys()) if (peer.former.size > FORMER_MAX) peer.former.delete(oldest)
        if (peers.get(from) !== undefined) for (const view of views.values()) view.claims.get(from)?.doubt(view.hearing(now, settings.proofTtlMs))
      }
      peer.incarnation = state.incarnation
      peer.leaving = false
      peer.knowsNothing()
      peer.wholeVersion = 0
      peer.parts.clear()
    } else if (state.version < peer.version) {
      return
    }
    const { number, of } = state.part ?? { number: 0, of: 1 }
    // A part of another version, or of another number of parts, says nothing of what the others would have said.
    if (state.version !== peer.version || of !== peer.partsOf) peer.parts.clear()
    peer.version = state.version
    peer.partsOf = of
    peer.parts.add(number)
    if (peer.parts.size === of) {
      peer.wholeVersion = state.version
      peer.wholeAt = now
    }
    peer.stateAt = now
    peer.tries = 0
    if (state.draining !== peer.draining || state.leaving !== peer.leaving) this.#context.touchPeer(from)
    peer.draining = state.draining
    if (state.leaving && !peer.leaving) peer.leftAt = now
    peer.leaving = state.leaving
    peer.freeBytes = state.freeBytes
    peer.labels = state.labels
    if (state.ackIncarnation === this.#incarnation) this.#acknowledged(peer, state.ackVersion)
    for (const claim of state.models) {
      if (views.has(claim.model)) this.#learn(peer, claim, state.wantsReply)
      // "I have nothing of it" asks for no answer: two that both have nothing would go on telling each other so.
      else if (hasSome(claim) && peer.unknown.size < UNKNOWN_MAX) peer.unknown.set(claim.model, claim.shards)
    }
    this.#policies.saveIfFew()
    if (peers.get(from) !== undefined && peer.wholeAt === now) this.#siftUnheard(peer)
    // Who asks in parts asks for all.
    if (state.wantsReply && of > 1) peer.asksForAll = true
    if (state.wantsReply || peer.unknown.size > 0) {
      if (peers.get(from) === undefined) this.#send(peer, false)
      else peer.wantsReply = true
    }
    this.#context.touch()
  }

  /** `isAnswered`: it is told in return what this node has of it. */
  #learn (peer: Peer, told: ModelClaim, isAnswered: boolean): void {
    const { views, now, settings } = this.#context
    const view = views.get(told.model)
    if (view === undefined || told.shards !== view.shards) return
    this.#policies.heard(view, told.policies)
    if (!view.claims.has(peer.id) && !view.members.delete(peer.id)) {
      this.met(peer, view)
      view.metAt = now
    }
    if (isAnswered) peer.spokenOf.add(view)
    if (!view.repeats(peer.id, told)) {
      if (view.told(peer.id, told, view.hearing(now, settings.proofTtlMs))) this.#context.viewChanged()
      this.#context.touch(view)
    }
    for (const member of told.members) this.#context.met(view, member, peer.id)
  }

  /** It has it by now, in this life. */
  #acknowledged (peer: Peer, version: number): void {
    const acknowledged = Math.min(version, this.#version)
    if (acknowledged < peer.ackFrom || acknowledged <= peer.ackVersion) return
    peer.ackVersion = acknowledged
    peer.ackedAt = this.#context.now
    for (const [view, from] of peer.owed) if (from <= acknowledged) peer.owed.delete(view)
    if (peer.round !== undefined && peer.round.version <= acknowledged) peer.round = undefined
  }

  /** Whoever has to do with what changed is to be told. */
  #spread (): void {
    if (this.#changed.size === 0) return
    const { peers } = this.#context
    this.#version++
    for (const view of this.#changed) {
      for (const ids of [view.claims.keys(), view.members.keys()]) {
        for (const id of ids) {
          const peer = peers.get(id)
          if (peer === undefined) continue
          peer.owed.set(view, this.#version)
          peer.tries = 0
        }
      }
    }
    this.#changed.clear()
  }

  /** It knows nothing of what this node has: what it acknowledges of what was said before, it heard in an earlier life. */
  #owe (peer: Peer): void {
    peer.ackFrom = ++this.#version
    this.#refresh(peer)
    for (const view of peer.spokenOf) peer.owed.set(view, this.#version)
  }

  /** All that this node shares with it is told in the next state, whether it knows it or not. */
  #refresh (peer: Peer): void {
    for (const view of this.#context.views.values()) if (view.concerns(peer.id)) peer.spokenOf.add(view)
    peer.shared = peer.spokenOf.size
    peer.asksForAll = false
  }

  #toSay (peer: Peer): Said[] {
    const { views, strangers } = this.#context
    const isStranger = strangers.has(peer.id)
    for (const view of peer.owed.keys()) {
      if (!isStranger && view.concerns(peer.id) && views.get(view.cid) === view) peer.spokenOf.add(view)
      else peer.owed.delete(view)
    }
    const said: Said[] = isStranger ? [] : [...peer.spokenOf].filter(view => view.concerns(peer.id))
    // It may think that this node has some of it, from before it lost its disk.
    for (const [cid, shards] of peer.unknown) if (!views.has(cid)) said.push({ cid, shards })
    peer.spokenOf.clear()
    peer.unknown.clear()
    if (said.length >= peer.shared) peer.refreshedAt = this.#context.now
    return said
  }

  #send (peer: Peer, asks: boolean): void {
    this.#spread()
    if (peer.asksForAll) this.#refresh(peer)
    const said = this.#toSay(peer)
    peer.sentAt = this.#context.now
    peer.tries++
    peer.wantsReply = false
    // Parts of one version make up one state, however long it takes until all have come; what changed meanwhile is told after it.
    if (peer.round === undefined && said.length <= MODELS_PER_MESSAGE) { this.#say(peer, said, { asks }); return }
    const { version, of } = peer.round ?? { version: this.#version, of: partsFor(said.length) }
    // Where they are too many for a queue, other ones get lost each time.
    const first = Math.floor(this.#context.random.next() * of)
    const left = new Map<number, Said[]>(Array.from({ length: of }, (_, at) => [(first + at) % of, []]))
    for (const each of said) left.get(nameHash(each.cid) % of)?.push(each)
    peer.round = { version, of, left, asks }
  }

  /** As many parts of its state as there is room for; returns how many. */
  #sendParts (peer: Peer, room: number): number {
    const { round } = peer
    if (round === undefined) return 0
    let sent = 0
    for (const [number, said] of round.left) {
      if (sent >= room) break
      round.left.delete(number)
      peer.sentAt = this.#context.now
      this.#say(peer, said, { asks: round.asks && round.left.size === 0, number })
      sent++
    }
    // That had only to be told again.
    if (round.left.size === 0 && round.version <= peer.ackVersion) peer.round = undefined
    return sent
  }

  /** `number`: of the part, where it is one. */
  #say (peer: Peer, said: readonly Said[], { asks, number }: { asks: boolean, number?: number }): void {
    const { views, self, draining, ports } = this.#context
    const { round } = peer
    if (round !== undefined) peer.wantsReply = false
    ports.send(peer.id, {
      type: 'state',
      incarnation: this.#incarnation,
      version: round?.version ?? this.#version,
      ackIncarnation: peer.incarnation,
      ackVersion: peer.wholeVersion,
      wantsReply: asks,
      draining,
      leaving: this.#leaving,
      freeBytes: this.#holding.freeBytes(),
      labels: self.labels,
      models: said.map(({ cid, shards }) => {
        const view = views.get(cid)
        return view === undefined ? nothingOf(cid, shards) : claimOf(view, peer.id, this.#context)
      }),
      ...round === undefined ? {} : { part: { number: number ?? 0, of: round.of } }
    })
  }

  #stranger (id: string): Peer {
    const { peers, now } = this.#context
    const peer = peers.make(id, now)
    addStranger(this.#context, peer)
    return peer
  }
}

/** Each model stays in its part, whatever others come and go: parts that were sent at different times make up one state. */
function partsFor (models: number): number {
  return Math.min(REPLICA_STATE_PARTS_MAX, 2 ** Math.ceil(Math.log2(models / (MODELS_PER_MESSAGE / 2))))
}

function hasSome ({ committed, pending, cached }: ModelClaim): boolean {
  return [committed, pending, cached].some(bits => bits.some(byte => byte !== 0))
}

function nothingOf (model: string, shards: number): ModelClaim {
  const none = (): Uint8Array => new Bitfield(shards).bytes
  return { model, shards, policies: [], committed: none(), pending: none(), cached: none(), members: [] }
}

function claimOf (view: ModelView, to: string, { self, peers, settings, now }: Context): ModelClaim {
  // Who went a moment ago may be waited for by who hears of it; who has been gone for longer only fills the places of others.
  let members = [...view.claims.keys()].filter(id => {
    const peer = peers.get(id)
    return id !== to && (peer?.liveness !== 'down' || now - peer.downAt < settings.graceDefaultMs)
  })
  if (members.length > MEMBERS_TOLD_MAX) {
    const isUp = (id: string): boolean => peers.get(id)?.liveness === 'alive'
    members = [...members.filter(isUp), ...members.filter(id => !isUp(id))].slice(0, MEMBERS_TOLD_MAX)
  }
  return {
    model: view.cid,
    shards: view.shards,
    policies: toldPolicies(view.policies, self.id),
    committed: view.bits(Own.Committed).bytes,
    pending: view.bits(Own.Pulling, Own.Broken).bytes,
    cached: view.bits(Own.Held).bytes,
    members
  }
}
