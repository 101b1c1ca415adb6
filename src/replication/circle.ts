import { addStranger, type Context } from './context.ts'
import { Hearsay } from './hearsay.ts'
import { Own, type ModelView } from './model-view.ts'
import type { Models } from './models.ts'
import type { Rebuild } from './rebuild.ts'
import type { States } from './states.ts'

const FIND_EVERY_MS = 10 * 60_000
const FIND_ALONE_MS = 30_000
/** Where there was no room for a search it is asked for again within this time. */
const FIND_AGAIN_MS = 20_000
/** A holder that has been down for this long is not coming back. */
const FORGET_DOWN_MS = 24 * 60 * 60_000
/** Of a model, of those that are down and not waited for, where as many as its `max` are up. */
const DOWN_CLAIMS_MAX = 32
/** Peers that are said to have to do with a model and have not said so. */
const MEMBERS_MAX = 256
/** Longer than a question and its answer take. */
const ANSWER_MS = 5_000
/** Who said that it has nothing is not asked again sooner, whatever others think: hearsay that comes again and again would hold up repair for ever. */
const WITHOUT_MS = 60_000
const FORGET_MODEL_MS = 10 * 60_000

/** Who has to do with which model: those are watched, the others forgotten, and of those that were never heard a few at a time; and the search for more of them. */
export class Circle {
  readonly #context: Context
  readonly #models: Models
  readonly #states: States
  readonly #rebuild: Rebuild
  readonly #hearsay: Hearsay
  #watched: ReadonlySet<string> = new Set()
  #viewsBefore = 0

  constructor (context: Context, { models, states, rebuild }: { models: Models, states: States, rebuild: Rebuild }) {
    this.#context = context
    this.#models = models
    this.#states = states
    this.#rebuild = rebuild
    this.#hearsay = new Hearsay(id => { for (const { members } of context.views.values()) members.delete(id) })
  }

  /** This peer is said to have to do with this model; by that peer, or else by a search. */
  met (view: ModelView, peerId: string, by = view.cid): void {
    const { self, peers, strangers, now, ports, touch } = this.#context
    if (peerId === self.id || view.claims.has(peerId) || view.members.has(peerId) || view.without.has(peerId)) return
    if (ports.heardAt(peerId) === undefined && by !== peerId && !this.#hearsay.add(peerId, by, now)) return
    if (!this.#hasRoom(view)) return
    view.members.set(peerId, now)
    view.circleChanged = true
    view.metAt = now
    const peer = peers.get(peerId) ?? strangers.get(peerId)
    // What it has heard of this node did not speak of this model.
    if (peer !== undefined) this.#states.met(peer, view)
    touch(view)
  }

  /** Who was asked and did not answer makes room for others: of hundreds of names most may be of those that are gone. */
  #hasRoom ({ members }: ModelView): boolean {
    const { now } = this.#context
    for (const [oldest, metAt] of members) {
      if (members.size < MEMBERS_MAX) break
      if (now - metAt < ANSWER_MS) return false
      members.delete(oldest)
    }
    return true
  }

  regroup (): void {
    const { views, peers, strangers, now, ports, self, wake } = this.#context
    // Names have their turns whether or not anything changed.
    let changed = this.#hearsay.size > 0 || peers.peers.size !== this.#watched.size || views.size !== this.#viewsBefore
    for (const view of views.values()) {
      // Offered, and it did not come: whoever has a share in it offers it again.
      if (view.isForeign) view.idleSince = view.hasAny(Own.Pulling) ? undefined : view.idleSince ?? now
      const goneAt = view.isForeign ? view.idleSince : view.forgottenAt
      if (goneAt !== undefined && now - goneAt >= FORGET_MODEL_MS) { this.#models.drop(view); changed = true; continue }
      // Nothing is kept of it: all who had to know do by now, and who comes back with it is met again.
      if (view.policy.target === 0 && now - view.metAt >= FORGET_MODEL_MS && view.metAt !== -Infinity && !this.#rebuild.awaits(view)) {
        for (const id of view.claims.keys()) view.dropClaim(id)
        if (view.members.size > 0) view.circleChanged = true
        view.members.clear()
      }
      // Those of the others are sifted when they are looked at.
      if (view.isForeign) this.sift(view)
      if (view.circleChanged) changed = true
    }
    this.#viewsBefore = views.size
    if (!changed) return
    const group = new Set<string>()
    const named = new Set<string>()
    for (const view of views.values()) {
      view.circleChanged = false
      for (const id of view.claims.keys()) group.add(id)
      for (const id of view.members.keys()) {
        if (this.#hearsay.has(id) && ports.heardAt(id) === undefined) named.add(id)
        else group.add(id)
      }
    }
    this.#hearsay.keep(named)
    const { asked, until } = this.#hearsay.turns(now)
    for (const id of asked) group.add(id)
    if (until !== undefined) wake(until)
    group.delete(self.id)
    for (const [id, peer] of peers.peers) {
      if (group.has(id)) continue
      peers.forget(id)
      // What is known of its space still counts.
      if (peer.liveness !== 'down' && !this.#hearsay.has(id)) addStranger(this.#context, peer)
    }
    for (const id of group) {
      if (peers.get(id) !== undefined) continue
      peers.track(id, now, strangers.get(id))
      strangers.delete(id)
    }
    if (group.size === this.#watched.size && [...group].every(id => this.#watched.has(id))) return
    this.#watched = group
    this.#context.ports.watch(group)
  }

  find (view: ModelView): void {
    const { now, ports, wake, random } = this.#context
    const every = view.claims.size === 0 ? FIND_ALONE_MS : FIND_EVERY_MS
    if (now < view.findAt + every) { wake(view.findAt + every); return }
    view.askedAt ??= now
    // At some time, so that those that were searched for before do not always come first.
    view.findAt = ports.find(view.cid) ? now + random.next() * every / 10 : now - every + random.next() * FIND_AGAIN_MS
    wake(view.findAt + every)
  }

  /** Claims of those who have nothing of it, or are gone for good, go. */
  sift (view: ModelView): void {
    const { peers, now, settings } = this.#context
    if (view.claims.size > DOWN_CLAIMS_MAX) this.#siftDown(view)
    for (const [id, claim] of view.claims) {
      const peer = peers.get(id)
      const gone = peer?.liveness === 'down' && now - peer.downAt >= FORGET_DOWN_MS
      const empty = claim.committed.count === 0 && claim.pending.count === 0 && claim.cached.count === 0
      if (empty && peer?.stateAt !== undefined) view.without.set(id, now)
      if (gone || (empty && peer?.stateAt !== undefined)) view.dropClaim(id)
    }
    for (const [id, { claimed, pending }] of view.spent) if (now - Math.max(claimed, pending) >= settings.proofTtlMs) view.spent.delete(id)
    for (const [id, at] of view.without) if (now - at >= WITHOUT_MS) view.without.delete(id)
  }

  /** Hosts that come and go under ever new names leave claims that make each look longer: where enough others are up, few of those nobody waits for stay. */
  #siftDown (view: ModelView): void {
    const { peers, now, settings } = this.#context
    const known = [...view.claims.keys()].map(id => peers.get(id)).filter(peer => peer !== undefined)
    if (known.filter(peer => peer.liveness === 'alive').length < view.policy.max) return
    const down = known.filter(peer => peer.liveness === 'down' && now - peer.downAt >= settings.graceDefaultMs).sort((a, b) => a.downAt - b.downAt)
    for (const { id } of down.slice(0, Math.max(0, down.length - DOWN_CLAIMS_MAX))) view.dropClaim(id)
  }
}
