import { REPLICA_URGENT_PULLS_MAX, REPLICA_URGENT_PULLS_PER_PEER_MAX } from '../base/index.ts'
import { Own, WRONG, type Claim, type ModelView, type ShardState } from './model-view.ts'
import { pullTimeoutMs } from './planner.ts'
import type { Context } from './context.ts'
import type { DeclineReason, ReplicaMessage } from './types.ts'

type Offer = Extract<ReplicaMessage, { type: 'offer' }>

interface Pull {
  view: ModelView
  shard: number
  urgent: boolean
  startedAt: number
  /** What was lacking when that was last told; undefined before the first time. */
  bytesLeft: number | undefined
  /** Who offered it; undefined when this node mends its own replica. */
  coordinator: string | undefined
}

/** A broken replica whose fetch failed, or which broke again, is fetched after this long, then after twice that, and so on. */
const MEND_AGAIN_MS = 30_000
const MEND_AGAIN_MAX_MS = 10 * 60_000
const SAVE_AGAIN_MS = 10_000

/**
 * This node's own replicas: what it promised, what is on its way, and the space that takes. A promise is durable before
 * anybody hears of it, and heard of only when the bytes are here.
 */
export class Holding {
  readonly #context: Context
  readonly #pulls = new Map<string, Pull>()
  /** Promises of models that the user removed while the ledger could not be written: it still has them. */
  readonly #unsaved = new Map<string, { model: string, shard: number }>()

  constructor (context: Context) {
    this.#context = context
  }

  get pulling (): number { return this.#pulls.size }

  /** Bytes of the donation that are promised or reserved; what is published or pinned here is not donated. */
  bytes (...states: Own[]): number {
    let sum = 0
    for (const view of this.#context.views.values()) if (!view.kept && !view.isForeign) sum += view.bytesOf(...states)
    // Of a model that was only offered, the few shards that come, and not a look at all that it is said to have.
    if (states.includes(Own.Pulling)) for (const { view, shard } of this.#pulls.values()) if (view.isForeign) sum += view.bytes[shard] ?? 0
    return sum
  }

  freeBytes (): number {
    const { settings, ports } = this.#context
    if (settings.donateBytes === 0) return 0
    // What is on its way has its room on the disk already.
    let coming = 0
    for (const { view, shard, bytesLeft } of this.#pulls.values()) coming += bytesLeft ?? view.bytes[shard] ?? 0
    return Math.max(0, Math.min(settings.donateBytes - this.bytes(Own.Committed, Own.Pulling, Own.Broken), ports.diskFreeBytes() - coming))
  }

  /** Why this node does not take it on, whoever wants it; undefined: it may. Of a model that nobody here has heard of there is no view. */
  refuses (from: string, offer: Offer, view: ModelView | undefined): DeclineReason | undefined {
    const { draining, settings } = this.#context
    const own = view?.own[offer.shard] ?? Own.None
    if (draining) return 'draining'
    if (settings.donateBytes === 0) return 'space'
    const bytes = bytesOf(offer, view)
    if (bytes === 0 || (view !== undefined && view.shards !== offer.shards)) return 'unknown-model'
    if (own === Own.Committed || own === Own.Pulling || own === Own.Broken) return 'held'
    if (own === Own.None && this.#isBusy(from, offer.urgent)) return 'busy'
    return bytes > this.freeBytes() ? 'space' : undefined
  }

  /** Whoever offers says himself whether it is urgent, and nobody knows whether what he offers will come. */
  #isBusy (from: string, urgent: boolean): boolean {
    const [max, ofOneMax] = urgent ? [REPLICA_URGENT_PULLS_MAX, REPLICA_URGENT_PULLS_PER_PEER_MAX] : [this.#context.settings.pullsMax, this.#context.settings.pullsMax / 2]
    if (this.#pulls.size >= max) return true
    let ofThis = 0
    for (const { coordinator } of this.#pulls.values()) if (coordinator === from) ofThis++
    return ofThis >= ofOneMax
  }

  /** What refuses() has nothing against. Undefined when this node takes it on; else why not. */
  take (from: string, offer: Offer, view: ModelView): DeclineReason | undefined {
    const { ports } = this.#context
    const { shard, urgent, holders } = offer
    // A last copy does not stay one on the word of those who may have nothing.
    if (!urgent && this.#enough(view, shard)) return 'held'
    const bytes = view.bytes[shard] = bytesOf(offer, view)
    if (view.own[shard] === Own.Held) return this.commit(view, shard) ? undefined : 'space'
    view.own[shard] = Own.Pulling
    if (view.forgottenAt !== undefined) {
      view.forgottenAt = undefined
      view.isForeign = true
      view.offeredBy = from
    }
    this.#pull(view, shard, [from, ...holders.filter(holder => holder !== from && holder !== this.#context.self.id)], urgent, from)
    this.#context.changed(view)
    ports.note({ type: 'pulling', model: view.cid, shard, bytes })
    return undefined
  }

  /** By what others say there are far more than there may be: whoever offers lies, or has a bad copy and thinks that all others are. */
  #enough (view: ModelView, shard: number): boolean {
    return this.#claimed(view, shard, claim => claim.failed[shard] !== WRONG) >= 2 * view.policy.max // some of them may be the liars
  }

  /** Holders by what they say themselves, of those that are there to stay. */
  #claimed (view: ModelView, shard: number, isBelieved: (claim: Claim) => boolean): number {
    let holders = 0
    for (const [id, claim] of view.claims) {
      const peer = this.#context.peers.get(id)
      if (claim.committed.has(shard) && isBelieved(claim) && peer?.liveness === 'alive' && !peer.draining && !peer.leaving) holders++
    }
    return holders
  }

  progress (view: ModelView, shard: number, bytes: number): void {
    const pull = this.#pulls.get(key(view, shard))
    if (pull === undefined) return
    // What was here before the first look did not come.
    if (pull.bytesLeft !== undefined) view.paceHere.cameSince(Math.max(0, pull.bytesLeft - bytes), this.#context.now)
    pull.bytesLeft = bytes
  }

  /** Of a shard on its way here; undefined when it is not. */
  bytesLeft (view: ModelView, shard: number): number | undefined {
    const pull = this.#pulls.get(key(view, shard))
    return pull === undefined ? undefined : pull.bytesLeft ?? view.bytes[shard] ?? 0
  }

  pulled (view: ModelView, shard: number, ok: boolean): void {
    const { now, ports } = this.#context
    const pull = this.#pulls.get(key(view, shard))
    if (pull === undefined) return
    this.#pulls.delete(key(view, shard))
    if (ok && pull.bytesLeft !== undefined) view.paceHere.cameSince(pull.bytesLeft, now)
    if (view.own[shard] === Own.Broken) {
      const state = view.states[shard]
      if (ok) {
        view.own[shard] = Own.Committed
        if (state !== undefined) state.mendedAt = now
        this.#context.changed(view)
        ports.note({ type: 'committed', model: view.cid, shard, bytes: view.bytes[shard] ?? 0 })
      } else if (state !== undefined) {
        mendLater(state, now)
      }
    } else if (view.own[shard] === Own.Pulling) {
      view.own[shard] = ok ? Own.Held : Own.None
      if (ok) view.isForeign = false
      const done = ok && view.policy.target > 0 && this.commit(view, shard)
      if (!done) {
        this.#context.changed(view)
        ports.note({ type: 'abandoned', model: view.cid, shard, bytes: view.bytes[shard] ?? 0 })
      }
      if (pull.coordinator !== undefined) ports.send(pull.coordinator, { type: done ? 'commit' : 'abandon', model: view.cid, shard })
    }
    this.#context.touch(view)
  }

  /** Promises to keep what is here. False when that could not be made durable. */
  commit (view: ModelView, shard: number): boolean { return this.commitAll(view, [shard]) }

  /** With one sync: a model of small files has thousands. */
  commitAll (view: ModelView, shards: readonly number[]): boolean {
    const { ports, now } = this.#context
    if (shards.length === 0) return true
    try {
      ports.save({ model: view.cid, shards, committed: true })
    } catch {
      return false // the disk's trouble is told by who has the disk
    }
    for (const shard of shards) {
      this.#unsaved.delete(key(view, shard))
      view.own[shard] = Own.Committed
      const state = view.states[shard]
      if (state !== undefined) state.committedAt = now
      ports.note({ type: 'committed', model: view.cid, shard, bytes: view.bytes[shard] ?? 0 })
    }
    this.#context.changed(view)
    return true
  }

  /** Takes the promise back. The bytes stay until space is needed. */
  release (view: ModelView, shard: number, why: 'released' | 'unpinned'): boolean {
    const own = view.own[shard]
    if (own !== Own.Committed && own !== Own.Broken && own !== Own.Pulling) return false
    return this.#releaseAll(view, [shard], why)
  }

  /** Those of them that are promised or on their way, with one sync. When that cannot be made durable, what was promised stays so. */
  #releaseAll (view: ModelView, shards: readonly number[], why: 'released' | 'unpinned'): boolean {
    const { ports } = this.#context
    const promised = shards.filter(shard => view.own[shard] === Own.Committed || view.own[shard] === Own.Broken)
    let saved = true
    let changed = false
    try {
      if (promised.length > 0) ports.save({ model: view.cid, shards: promised, committed: false })
    } catch {
      saved = false
    }
    for (const shard of shards) {
      const own = view.own[shard]
      if (own !== Own.Pulling && !(saved && (own === Own.Committed || own === Own.Broken))) continue
      this.#cancel(view, shard)
      view.own[shard] = own === Own.Committed ? Own.Held : Own.None
      changed = true
      ports.note({ type: why, model: view.cid, shard, bytes: view.bytes[shard] ?? 0 })
    }
    if (changed) this.#context.changed(view)
    return saved
  }

  held (view: ModelView, shard: number): void {
    const own = view.own[shard]
    if (own === Own.None) {
      view.own[shard] = Own.Held
      view.isForeign = false
      const state = view.states[shard]
      if (state !== undefined) state.heldAt = this.#context.now
      this.#context.changed(view)
    } else if (own === Own.Broken && !this.#pulls.has(key(view, shard))) {
      view.own[shard] = Own.Committed
      this.#context.changed(view)
    }
  }

  lost (view: ModelView, shard: number): void {
    const own = view.own[shard]
    if (own !== Own.Held && own !== Own.Committed) return
    view.own[shard] = own === Own.Held ? Own.None : Own.Broken
    const state = view.states[shard]
    const { now } = this.#context
    if (state !== undefined) {
      state.keepUntil = -Infinity
      // What breaks again so soon has been put on the same bad place: that mended nothing.
      if (now - state.mendedAt < MEND_AGAIN_MAX_MS) mendLater(state, now)
      else { state.repairAt = -Infinity; state.mendsFailed = 0 }
    }
    // What was checked against a bad copy says nothing: neither who failed nor who passed.
    for (const claim of view.claims.values()) {
      claim.failed[shard] = 0
      claim.provenAt[shard] = -Infinity
      claim.askedAt[shard] = -Infinity
    }
    this.#context.ports.note({ type: 'lost', model: view.cid, shard, bytes: view.bytes[shard] ?? 0 })
    this.#context.changed(view)
  }

  /** The user removed the model here: nothing of it is left to keep. */
  forget (view: ModelView): void {
    const saved = this.#releaseAll(view, numbersOf(view), 'released')
    for (let shard = 0; shard < view.shards; shard++) {
      const promised = view.own[shard] === Own.Committed || view.own[shard] === Own.Broken
      if (!saved && promised) this.removed(view.cid, shard)
      this.#cancel(view, shard)
      view.own[shard] = Own.None
    }
    this.#context.changed(view)
  }

  /** The ledger has a promise of a model that is not here any more: it is told so as soon as it can be. */
  removed (model: string, shard: number): void { this.#unsaved.set(`${model}/${shard}`, { model, shard }) }

  /** Commits what is kept here anyway, mends what broke, and gives up what hangs. */
  tick (): void {
    const { now, views, wake } = this.#context
    this.#saveRemovals()
    for (const view of views.values()) {
      if (view.policy.target === 0) {
        if (view.hasAny(Own.Pulling, Own.Committed, Own.Broken)) this.#releaseAll(view, numbersOf(view), 'unpinned')
        continue
      }
      if (view.isForeign) continue
      if (view.kept && view.local && !this.#context.draining && view.hasAny(Own.Held)) this.commitAll(view, shardsWith(view, Own.Held))
      if (!view.hasAny(Own.Broken)) continue
      const broken = shardsWith(view, Own.Broken)
      const needless = new Set(broken.filter(shard => this.#isNeedless(view, shard)))
      if (needless.size > 0) this.#releaseAll(view, [...needless], 'released')
      // Who drains would fetch it only to let it go.
      if (!this.#context.draining) for (const shard of broken) if (!needless.has(shard)) this.#mend(view, shard)
    }
    for (const [id, { view, shard, startedAt }] of this.#pulls) {
      const until = startedAt + pullTimeoutMs(view.bytes[shard] ?? 0)
      if (now < until) { wake(until); continue }
      this.#context.ports.cancel(view.cid, shard)
      if (this.#pulls.has(id)) this.pulled(view, shard, false)
    }
  }

  /** There is nothing here that others could lose: who drains is done with it, and what others have as often as is wanted nobody needs. */
  #isNeedless (view: ModelView, shard: number): boolean {
    const { draining, settled, peers } = this.#context
    if (!settled) return false
    if (draining) return true
    if (peers.brake || view.kept || this.#pulls.has(key(view, shard))) return false
    return this.#claimed(view, shard, claim => claim.doubtedAt === undefined) >= view.policy.target
  }

  #saveRemovals (): void {
    const { now, ports, wake } = this.#context
    for (const [model, unsaved] of Map.groupBy(this.#unsaved.values(), ({ model }) => model)) {
      try {
        ports.save({ model, shards: unsaved.map(({ shard }) => shard), committed: false })
      } catch {
        wake(now + SAVE_AGAIN_MS)
        return
      }
      for (const { shard } of unsaved) this.#unsaved.delete(`${model}/${shard}`)
    }
  }

  #mend (view: ModelView, shard: number): void {
    const { now, wake, settings, peers } = this.#context
    const state = view.states[shard]
    if (state === undefined || this.#pulls.has(key(view, shard))) return
    if (now < state.repairAt) { wake(state.repairAt); return }
    const from: string[] = []
    for (const [id, claim] of view.claims) {
      if ((claim.committed.has(shard) || claim.cached.has(shard)) && peers.get(id)?.liveness === 'alive') from.push(id)
    }
    if (from.length === 0 || this.#pulls.size >= settings.pullsMax * 2 || this.#context.ports.diskFreeBytes() === 0) { wake(now + MEND_AGAIN_MS); return }
    this.#pull(view, shard, from, false, undefined)
  }

  #pull (view: ModelView, shard: number, from: string[], urgent: boolean, coordinator: string | undefined): void {
    const { now, ports, wake } = this.#context
    this.#pulls.set(key(view, shard), { view, shard, urgent, startedAt: now, bytesLeft: undefined, coordinator })
    wake(now + pullTimeoutMs(view.bytes[shard] ?? 0))
    ports.pull({ model: view.cid, shard, from, urgent })
  }

  #cancel (view: ModelView, shard: number): void {
    if (this.#pulls.delete(key(view, shard))) this.#context.ports.cancel(view.cid, shard)
  }
}

function mendLater (state: ShardState, now: number): void {
  state.repairAt = now + Math.min(MEND_AGAIN_MAX_MS, MEND_AGAIN_MS * 2 ** state.mendsFailed++)
}

function shardsWith (view: ModelView, own: Own): number[] {
  const shards: number[] = []
  for (let shard = 0; shard < view.shards; shard++) if (view.own[shard] === own) shards.push(shard)
  return shards
}

function numbersOf (view: ModelView): number[] { return Array.from({ length: view.shards }, (_, shard) => shard) }

/** Who has the model knows better than whoever offers it. A shard has at least one block, and that at least one byte. */
function bytesOf ({ shard, bytes }: Offer, view: ModelView | undefined): number {
  return view?.local === true ? view.bytes[shard] ?? 0 : bytes
}

function key (view: ModelView, shard: number): string { return `${view.cid}/${shard}` }
