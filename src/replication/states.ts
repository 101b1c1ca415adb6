import { Bitfield, REPLICA_POLICY_SAVES_BURST, REPLICA_POLICY_SAVES_PER_SECOND, REPLICA_STATE_PARTS_MAX } from '../base/index.ts'
import { TokenBucket } from '../transfer/index.ts'
import { addStranger, exchangeId, type Context } from './context.ts'
import { Own, type ModelView } from './model-view.ts'
import { toldPolicies } from './policies.ts'
import { nameHash } from './rendezvous.ts'
import type { Holding } from './holding.ts'
import type { Peer } from './peer-table.ts'
import type { ModelClaim, PolicyRecord, ReplicaMessage } from './types.ts'

type State = Extract<ReplicaMessage, { type: 'state' }>

const RETRY_FIRST_MS = 1_000
const RETRY_MAX_MS = 60_000
/** Also when nothing changed: what was lost on the way, in memory or by a bug, is right again after this long. */
const REFRESH_MS = 10 * 60_000
/** A peer that is said to have to do with a model and never says so itself. */
const SILENT_TRIES_MAX = 8
/** Members named in one message. */
const MEMBERS_TOLD_MAX = 64
/** Longer than a message and its answer take. */
const ANSWER_MS = 5_000
/** Of a thousand shards each, half a megabyte. Where there are more, half of that on average, as a model is always in the same part of so many. */
const MODELS_PER_MESSAGE = 64
const UNKNOWN_MAX = 256
const FORMER_MAX = 8
/** What comes of a former life later than this is the present one: a word that came late had been taken for a new life. */
const LATE_MAX_MS = 15 * 60_000

/**
 * Who has what, told by those who have it: each node tells the peers it shares models with what it holds, whenever that
 * changes, until they have acknowledged it. Nothing is passed on but names of peers and signed policies.
 */
export class States {
  readonly #context: Context
  readonly #holding: Holding
  readonly #incarnation: string
  /** Records that are wanted and not saved yet, by model: the newest of each publisher. */
  readonly #unsaved = new Map<ModelView, PolicyRecord[]>()
  readonly #saves = new TokenBucket(REPLICA_POLICY_SAVES_PER_SECOND, REPLICA_POLICY_SAVES_BURST, 0)
  #version = 1
  #leaving = false

  constructor (context: Context, holding: Holding) {
    this.#context = context
    this.#holding = holding
    this.#incarnation = exchangeId(context.random)
  }

  changed (): void {
    this.#version++
    for (const peer of this.#context.peers.peers.values()) peer.tries = 0
  }

  leave (): void {
    this.#leaving = true
    this.#version++
    for (const peer of this.#context.peers.peers.values()) if (peer.liveness !== 'down') this.#send(peer, false)
  }

  /** Asks a peer for its state, whatever it shares with this node. */
  probe (peer: Peer): void { this.#send(peer, true) }

  /** Tells those who do not know yet, and asks those of whom nothing is known. */
  tick (): void {
    const { now, peers, strangers, wake } = this.#context
    // It asked, and turned out to share nothing with this node: it wants to know of its space all the same.
    for (const peer of strangers.values()) if (peer.wantsReply) this.#send(peer, false)
    for (const peer of peers.peers.values()) {
      if (peer.liveness === 'down') continue
      const unknown = peer.stateAt === undefined || now - peer.stateAt >= REFRESH_MS
      if (!unknown && !peer.wantsReply && peer.ackVersion >= this.#version) { wake((peer.stateAt ?? now) + REFRESH_MS); continue }
      const at = peer.sentAt + (peer.tries === 0 ? RETRY_FIRST_MS : Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** peer.tries))
      if (now < at && !(peer.wantsReply && peer.tries === 0 && now > peer.sentAt)) { wake(at); continue }
      // An answer carries the acknowledgement.
      this.#send(peer, unknown || peer.ackVersion < this.#version)
      wake(now + RETRY_FIRST_MS)
      if (peer.stateAt === undefined && peer.tries > SILENT_TRIES_MAX) for (const view of this.#context.views.values()) if (view.members.delete(peer.id)) view.circleChanged = true
    }
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
        for (const view of views.values()) view.claims.get(from)?.doubt(view.hearing(now, settings.proofTtlMs))
      }
      peer.incarnation = state.incarnation
      peer.leaving = false
      peer.ackVersion = 0
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
    if (peer.parts.size === of) peer.wholeVersion = state.version
    peer.stateAt = now
    peer.tries = 0
    peer.draining = state.draining
    if (state.leaving && !peer.leaving) peer.leftAt = now
    peer.leaving = state.leaving
    peer.freeBytes = state.freeBytes
    peer.labels = state.labels
    if (state.ackIncarnation === this.#incarnation) peer.ackVersion = Math.max(peer.ackVersion, Math.min(state.ackVersion, this.#version))
    for (const claim of state.models) {
      if (views.has(claim.model)) this.#learn(peer, claim)
      // "I have nothing of it" asks for no answer: two that both have nothing would go on telling each other so.
      else if (hasSome(claim) && peer.unknown.size < UNKNOWN_MAX) peer.unknown.set(claim.model, claim.shards)
    }
    this.#saveIfFew()
    for (const view of views.values()) {
      const askedSince = view.members.get(from) ?? view.claims.get(from)?.doubtedAt
      // It was told what this node has of it, and had nothing to say (in this life).
      if (askedSince === undefined || peer.sentAt <= askedSince || now - askedSince < ANSWER_MS) continue
      view.members.delete(from)
      if (view.dropClaim(from)) this.#context.viewChanged()
      view.without.set(from, now)
    }
    if (state.wantsReply || peer.unknown.size > 0) {
      if (peers.get(from) === undefined) this.#send(peer, false)
      else peer.wantsReply = true
    }
    this.#context.touch()
  }

  #learn (peer: Peer, told: ModelClaim): void {
    const { views, now, settings } = this.#context
    const view = views.get(told.model)
    if (view === undefined || told.shards !== view.shards) return
    this.#heard(view, told.policies)
    if (!view.claims.has(peer.id) && !view.members.delete(peer.id)) {
      peer.ackVersion = 0
      peer.tries = 0
      // Of a version that it has in parts, no part comes to be missing.
      if (peer.partsSent > 1) this.changed()
      view.metAt = now
    }
    if (view.told(peer.id, told, view.hearing(now, settings.proofTtlMs))) this.#context.viewChanged()
    for (const member of told.members) this.#context.met(view, member, peer.id)
  }

  /** The true ones among them. */
  read (model: string, given: readonly Uint8Array[]): PolicyRecord[] {
    return given.map(bytes => this.#context.ports.readPolicy(bytes)).filter(record => record !== undefined).filter(record => record.model === model)
  }

  /** Takes in records that are not known; a false one is ignored. They are in force before it returns, or at the next tick when there were many lately. */
  policies (view: ModelView, given: readonly Uint8Array[]): void {
    this.#heard(view, given)
    this.#saveIfFew()
  }

  #heard (view: ModelView, given: readonly Uint8Array[]): void {
    const waiting = this.#unsaved.get(view) ?? []
    const known = [...view.policies.values(), ...waiting]
    const { saved } = view.merge([...waiting, ...this.read(view.cid, given.filter(bytes => !known.some(record => equal(record.bytes, bytes))))])
    if (saved.length > 0) this.#unsaved.set(view, saved)
  }

  #saveIfFew (): void {
    const { now, touch } = this.#context
    if (this.#unsaved.size === 0) return
    touch()
    if (this.#saves.waitMs(now) > 0) return
    this.#saves.take(1, now)
    this.savePolicies()
  }

  /** What was heard, in one write. It is not in force before it is durable; where that fails the next state brings it again. */
  savePolicies (): void {
    const { views, ports, now, changed } = this.#context
    const merged = [...this.#unsaved].filter(([view]) => views.get(view.cid) === view).map(([view, records]) => ({ view, merged: view.merge(records) })).filter(one => one.merged.saved.length > 0)
    this.#unsaved.clear()
    if (merged.length === 0) return
    try {
      ports.savePolicies({ saved: merged.flatMap(one => one.merged.saved), dropped: merged.flatMap(one => one.merged.dropped) })
    } catch {
      for (const { view } of merged) view.policyRefused = true
      return
    }
    for (const one of merged) {
      one.view.adopt(one.merged)
      one.view.policyRefused = false
      one.view.metAt = now
    }
    changed()
  }

  #send (peer: Peer, asks: boolean): void {
    const { now, views, self, draining, ports, strangers, random } = this.#context
    const models: ModelClaim[] = []
    if (!strangers.has(peer.id)) {
      for (const view of views.values()) if (view.claims.has(peer.id) || view.members.has(peer.id)) models.push(claimOf(view, peer.id, this.#context))
    }
    // It may think that this node has some of it, from before it lost its disk.
    for (const [model, shards] of peer.unknown) if (!views.has(model)) models.push(nothingOf(model, shards))
    peer.unknown.clear()
    peer.sentAt = now
    peer.tries++
    peer.wantsReply = false
    const freeBytes = this.#holding.freeBytes()
    // In parts that fit into a message; what a part does not name it says nothing about. Where they are too many for a queue, other ones get lost each time.
    const parts = inParts(models)
    peer.partsSent = parts.length
    const first = parts.length === 1 ? 0 : Math.floor(random.next() * parts.length)
    for (let sent = 1; sent <= parts.length; sent++) {
      const number = (first + sent) % parts.length
      ports.send(peer.id, {
        type: 'state',
        incarnation: this.#incarnation,
        version: this.#version,
        ackIncarnation: peer.incarnation,
        ackVersion: peer.wholeVersion,
        wantsReply: asks && sent === parts.length,
        draining,
        leaving: this.#leaving,
        freeBytes,
        labels: self.labels,
        models: parts[number] ?? [],
        ...parts.length === 1 ? {} : { part: { number, of: parts.length } }
      })
    }
  }

  #stranger (id: string): Peer {
    const { peers, now } = this.#context
    const peer = peers.make(id, now)
    addStranger(this.#context, peer)
    return peer
  }
}

/** Each model stays in its part, whatever others come and go: parts that were sent at different times make up one state. */
function inParts (models: ModelClaim[]): ModelClaim[][] {
  if (models.length <= MODELS_PER_MESSAGE) return [models]
  const count = Math.min(REPLICA_STATE_PARTS_MAX, 2 ** Math.ceil(Math.log2(models.length / (MODELS_PER_MESSAGE / 2))))
  const parts: ModelClaim[][] = Array.from({ length: count }, () => [])
  for (const claim of models) parts[nameHash(claim.model) % count]?.push(claim)
  return parts
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

function equal (a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}
