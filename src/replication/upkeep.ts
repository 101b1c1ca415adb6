import type { Context } from './context.ts'
import { othersHave } from './eviction.ts'
import type { Handover } from './handover.ts'
import type { Holding } from './holding.ts'
import { Own, type ModelView } from './model-view.ts'
import type { Offers, Task } from './offers.ts'
import type { Peer } from './peer-table.ts'
import { look, needOf, rankOf, type ShardLook } from './planner.ts'
import type { Rebalance } from './rebalance.ts'

const BELIEVED_LOOK_MS = 5_000

/** Looks at each shard of a model that is here: what is lacking becomes a task, what is too much a question, what nobody cares for a promise. */
export class Upkeep {
  readonly #context: Context
  readonly #holding: Holding
  readonly #offers: Offers
  readonly #rebalance: Rebalance
  readonly #handover: Handover
  /** Of this tick, and kept up through it: summing up takes a look at each shard of each model. */
  #freeBytes: number | undefined

  constructor (context: Context, { holding, offers, rebalance, handover }: { holding: Holding, offers: Offers, rebalance: Rebalance, handover: Handover }) {
    this.#context = context
    this.#holding = holding
    this.#offers = offers
    this.#rebalance = rebalance
    this.#handover = handover
  }

  /** At each tick, before all looks. */
  begin (): void { this.#freeBytes = undefined }

  /** At its shards from one to before another; `seen` is told of each what there is of it. */
  look (view: ModelView, tasks: Task[], { from, to, seen: tell }: { from: number, to: number, seen: (shard: number, seen: ShardLook) => void }): void {
    const { draining } = this.#context
    const adopted: number[] = []
    for (let shard = from; shard < to; shard++) {
      const committed = view.own[shard] === Own.Committed
      const seen = look(view, shard, this.#context)
      tell(shard, seen)
      // What is added or pinned while this node drains is promised by nobody yet, and nobody else may have what is only cached: it is handed over all the same.
      if (committed || (draining && view.own[shard] === Own.Held && (view.kept || this.#isLeft(view, shard, seen)))) this.#consider({ view, shard, seen, committed }, tasks)
      else if (this.#overlook(view, shard, seen)) adopted.push(shard)
    }
    this.#holding.commitAll(view, adopted)
  }

  /** Nobody else is known to have it, and nobody who said goodbye to come back with it. */
  #isLeft (view: ModelView, shard: number, seen: ShardLook): boolean {
    const { settled, inHaste, settings, now, wake } = this.#context
    if (!settled || othersHave(view, shard, this.#context)) return false
    const until = inHaste ? -Infinity : Math.max(-Infinity, ...seen.missing.filter(peer => peer.leaving && !peer.draining).map(peer => peer.leftAt + settings.graceDefaultMs))
    if (now < until) wake(until)
    return now >= until
  }

  #consider ({ view, shard, seen, committed }: { view: ModelView, shard: number, seen: ShardLook, committed: boolean }, tasks: Task[]): void {
    const { now } = this.#context
    const state = view.states[shard]
    if (state === undefined) return
    this.#remember(view, shard, seen)
    const offered = this.#offers.offered(view, shard)
    if (seen.replicas > 1 || seen.pending.length + offered === 0) state.pendingSince = undefined
    else state.pendingSince ??= now
    const lacking = needOf(view, shard, seen, offered, this.#context)
    if (seen.replicas < view.policy.target && seen.pending.length + seen.claimed.length > 0) {
      // What is only said is not believed for ever.
      this.#context.wake(now + BELIEVED_LOOK_MS)
      if (lacking === undefined) state.coveredAt = now
    }
    const need = lacking ?? this.#rebalance.need(view, shard, seen, offered)
    if (need !== undefined) tasks.push({ view, shard, look: seen, need })
    if (committed) this.#handover.consider(view, shard, seen)
  }

  /** How many there are, and since when they are too few. */
  #remember (view: ModelView, shard: number, { replicas }: ShardLook): void {
    const { now, ports } = this.#context
    const state = view.states[shard]
    if (state === undefined) return
    if (replicas < state.replicas) state.replicasSince = now
    state.replicas = replicas
    if (replicas >= view.policy.target) {
      if (state.belowSince !== undefined && state.reached) ports.note({ type: 'restored', model: view.cid, shard, ms: now - state.belowSince })
      state.belowSince = undefined
      state.reached = true
    } else {
      state.belowSince ??= now
    }
  }

  /** Only who has it can tell who else has. Says whether this node should promise it. */
  #overlook (view: ModelView, shard: number, seen: ShardLook): boolean {
    const state = view.states[shard]
    if (state === undefined) return false
    state.belowSince = undefined
    state.replicas = 0
    return this.#adopts(view, shard, seen)
  }

  /**
   * Nobody is left who promised to keep it, or those who are do nothing about what is lacking, and this node happens to
   * have it: it promises, the first in rank first.
   */
  #adopts (view: ModelView, shard: number, seen: ShardLook): boolean {
    const { self, peers, settled, draining, settings, now, wake } = this.#context
    const state = view.states[shard]
    if (view.own[shard] !== Own.Held || state === undefined) return false
    const { proven, claimed, missing, draining: leaving, pending } = seen
    const alone = proven.length + claimed.length + leaving.length === 0
    const few = proven.length < view.policy.target
    const bytes = view.bytes[shard] ?? 0
    const fits = (alone || few) && (this.#freeBytes ??= this.#holding.freeBytes()) >= bytes
    const neglected = few && fits
    if (!settled || draining || !view.local || pending.length > 0 || !(alone || neglected)) { state.orphanedSince = undefined; return false }
    state.orphanedSince ??= now
    const others = [...view.claims].filter(([, claim]) => claim.cached.has(shard)).map(([id]) => peers.get(id)).filter(peer => peer?.liveness === 'alive' && !peer.draining)
    // Who is up and only does not answer may be behind a bad line; who said goodbye comes back.
    const patienceMs = !alone || missing.some(peer => peer.liveness === 'alive' || peer.leaving) ? settings.graceDefaultMs : 0
    // More than this node gives it promises only when it must: who loaded it a moment ago may not have heard of all who keep it.
    const since = Math.max(state.orphanedSince + patienceMs, fits ? -Infinity : state.heldAt + settings.graceDefaultMs)
    const dueAt = since + settings.rankDelayMs * (1 + rankOf(view, shard, self, others as Peer[]))
    if (now < dueAt) { wake(dueAt); return false }
    this.#freeBytes = Math.max(0, (this.#freeBytes ?? 0) - bytes)
    return true
  }
}
