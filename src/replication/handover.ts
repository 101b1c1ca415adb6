import { exchangeId, type Context } from './context.ts'
import { isProven, trimPlace, type ShardLook } from './planner.ts'
import { Own, type ModelView } from './model-view.ts'
import type { Holding } from './holding.ts'
import type { Proofs } from './proofs.ts'
import type { ReplicaMessage } from './types.ts'

interface Asking { id: string, view: ModelView, shard: number, sentAt: number, asked: Set<string>, agreed: Set<string>, drain: boolean }

/** Who says that it keeps its replica does not let go of it for this long, whatever happens. */
const KEEP_PROMISE_MS = 2 * 60_000
/** Shorter than the promise by far: what was agreed still holds when it is acted on. */
const ANSWER_TIMEOUT_MS = 10_000
const AGAIN_MS = 60_000
const DRAIN_AGAIN_MS = 5_000
/** The next in the order lets go when the first one does not. */
const PLACE_DELAY_MS = 5 * 60_000

/**
 * Lets go of replicas: the surplus, and all of them when the node drains. Nobody lets go alone: as many others as the
 * target asks for must have been proven lately and have promised to keep theirs, and who is letting go itself does
 * not promise. So two who act on different views cannot both count on each other.
 */
export class Handover {
  readonly #context: Context
  readonly #holding: Holding
  readonly #proofs: Proofs
  readonly #asking = new Map<string, Asking>()
  readonly #byShard = new Map<string, Asking>()
  readonly #againAt = new Map<string, number>()
  readonly #surplusSince = new Map<string, number>()

  constructor (context: Context, holding: Holding, proofs: Proofs) {
    this.#context = context
    this.#holding = holding
    this.#proofs = proofs
  }

  /** Looks at a shard that this node is committed to. */
  consider (view: ModelView, shard: number, seen: ShardLook): void {
    const { draining, settled, peers, now, settings, wake } = this.#context
    if (view.policy.target === 0 || !settled || peers.brake) return
    const id = key(view, shard)
    if (draining) {
      if (seen.proven.length >= view.policy.target) this.#ask(view, shard, seen, true)
      return
    }
    if (view.kept || seen.replicas <= view.policy.max) { this.#surplusSince.delete(id); return }
    let since = this.#surplusSince.get(id)
    if (since === undefined) this.#surplusSince.set(id, since = now)
    const state = view.states[shard]
    const dueAt = Math.max(since + trimPlace(view, shard, this.#context.self, seen.proven) * PLACE_DELAY_MS, (state?.releasedAt ?? -Infinity) + settings.trimEveryMs)
    if (now < dueAt) { wake(dueAt); return }
    this.#ask(view, shard, seen, false)
  }

  /** Somebody wants to let go of a shard: does this node keep its own? */
  requested (from: string, { id, model, shard }: Extract<ReplicaMessage, { type: 'release' }>): void {
    const { views, draining, now, ports, settled } = this.#context
    const view = views.get(model)
    const state = view?.states[shard]
    const ok = view?.own[shard] === Own.Committed && state !== undefined && !draining && settled && !this.#byShard.has(key(view, shard))
    if (ok) state.keepUntil = now + KEEP_PROMISE_MS
    ports.send(from, { type: 'keep', id, model, shard, ok })
  }

  answered (from: string, { id, ok }: Extract<ReplicaMessage, { type: 'keep' }>): void {
    const asking = this.#asking.get(id)
    if (asking === undefined || !asking.asked.delete(from)) return
    if (ok) asking.agreed.add(from)
    const { view, shard, agreed, drain } = asking
    const { now, settings, draining, peers, settled } = this.#context
    const claim = (peer: string): boolean => {
      const theirs = view.claims.get(peer)
      return theirs?.committed.has(shard) === true && isProven(theirs, shard, settings.trimProofMs, now) && peers.get(peer)?.liveness === 'alive' && peers.get(peer)?.draining === false
    }
    const sure = [...agreed].filter(claim).length
    if (sure < (drain ? view.policy.target : view.policy.max) || draining !== drain || peers.brake || !settled) {
      if (asking.asked.size === 0) this.#end(asking)
      return
    }
    this.#end(asking)
    const state = view.states[shard]
    if (state === undefined || now < state.keepUntil) return
    if (!drain) state.releasedAt = now
    if (!this.#holding.release(view, shard, 'released')) return
    // Told at once to all who counted on it, in the next state.
    this.#context.touch()
  }

  expire (): void {
    const { now, wake } = this.#context
    for (const asking of this.#asking.values()) {
      if (now - asking.sentAt >= ANSWER_TIMEOUT_MS) this.#end(asking)
      else wake(asking.sentAt + ANSWER_TIMEOUT_MS)
    }
  }

  /** True while this node waits to hear whether it may let go. */
  asks (view: ModelView, shard: number): boolean { return this.#byShard.has(key(view, shard)) }

  #ask (view: ModelView, shard: number, seen: ShardLook, drain: boolean): void {
    const { now, random, ports, settings, wake } = this.#context
    const state = view.states[shard]
    if (state === undefined || this.#byShard.has(key(view, shard))) return
    const againAt = Math.max(this.#againAt.get(key(view, shard)) ?? -Infinity, state.keepUntil)
    if (now < againAt) { wake(againAt); return }
    const fresh = seen.proven.filter(peer => {
      const claim = view.claims.get(peer.id)
      return claim !== undefined && isProven(claim, shard, settings.trimProofMs, now)
    })
    if (fresh.length < (drain ? view.policy.target : view.policy.max)) {
      for (const peer of seen.proven) if (!fresh.includes(peer)) this.#proofs.hurry(view, shard, peer)
      wake(now + 1_000)
      return
    }
    const id = exchangeId(random)
    const asking: Asking = { id, view, shard, sentAt: now, asked: new Set(fresh.map(peer => peer.id)), agreed: new Set(), drain }
    this.#asking.set(id, asking)
    this.#byShard.set(key(view, shard), asking)
    this.#againAt.set(key(view, shard), now + (drain ? DRAIN_AGAIN_MS : AGAIN_MS) * (1 + random.next()))
    wake(now + ANSWER_TIMEOUT_MS)
    for (const peer of fresh) ports.send(peer.id, { type: 'release', id, model: view.cid, shard })
  }

  #end (asking: Asking): void {
    this.#asking.delete(asking.id)
    this.#byShard.delete(key(asking.view, asking.shard))
    this.#context.touch()
  }
}

function key (view: ModelView, shard: number): string { return `${view.cid}/${shard}` }
