import { exchangeId, type Context } from './context.ts'
import { isProven, isSilent, look, rankOf, trimPlace, type ShardLook } from './planner.ts'
import { Own, type ModelView } from './model-view.ts'
import type { Holding } from './holding.ts'
import type { Proofs } from './proofs.ts'
import type { Rebalance } from './rebalance.ts'
import type { ReplicaMessage } from './types.ts'

/** Letting go takes promises of so many others, one of them in another domain of that level than this node. */
interface Terms { others: number, level?: number | undefined }

interface Asking { id: string, view: ModelView, shard: number, sentAt: number, asked: Set<string>, agreed: Set<string>, drain: boolean, terms: Terms }

/** Who says that it keeps its replica does not let go of it for this long, whatever happens. */
const KEEP_PROMISE_MS = 2 * 60_000
/** Shorter than the promise by far: what was agreed still holds when it is acted on, at the next tick. A node that stood still for longer asks again. */
const ANSWER_TIMEOUT_MS = 10_000
const DECIDE_MAX_MS = 30_000
const AGAIN_MS = 60_000
/** Beside a cut that stays somebody may say no for ever. */
const AGAIN_MAX_MS = 5 * 60_000
const DRAIN_AGAIN_MS = 5_000
/** The next in the order lets go when the first one does not. */
const PLACE_DELAY_MS = 5 * 60_000

/**
 * Lets go of replicas: the surplus, what was made anew in a better place, and all of them when the node drains. Nobody lets go alone: as many others as the
 * target asks for must have been proven lately and have promised to keep theirs, and who is letting go itself, or would see too few
 * without this one, does not promise. Of a surplus nobody lets go when one says no. So two who act on different views cannot both count on each other.
 */
export class Handover {
  readonly #context: Context
  readonly #holding: Holding
  readonly #proofs: Proofs
  readonly #rebalance: Rebalance
  readonly #asking = new Map<string, Asking>()
  readonly #byShard = new Map<string, Asking>()

  constructor (context: Context, { holding, proofs, rebalance }: { holding: Holding, proofs: Proofs, rebalance: Rebalance }) {
    this.#context = context
    this.#holding = holding
    this.#proofs = proofs
    this.#rebalance = rebalance
  }

  /** Looks at a shard that this node is committed to. */
  consider (view: ModelView, shard: number, seen: ShardLook): void {
    const { draining, settled, peers, now, settings, wake } = this.#context
    if (view.policy.target === 0 || !settled || peers.brake) return
    if (draining) {
      if (seen.proven.length >= view.policy.target) this.#ask(view, shard, seen, { others: view.policy.target })
      return
    }
    const redundant = this.#rebalance.redundant(view, shard, seen)
    const terms = seen.replicas > view.policy.max ? { others: view.policy.max } : redundant === undefined ? undefined : { others: view.policy.target, level: redundant.level }
    const state = view.states[shard]
    if (state === undefined) return
    if (view.kept || terms === undefined) { state.surplusSince = undefined; state.refusals = 0; return }
    const since = state.surplusSince ??= now
    // What this node moved away is its own to let go.
    const place = redundant !== undefined && redundant.level === undefined ? 0 : trimPlace(view, shard, this.#context.self, seen.proven)
    const dueAt = Math.max(since + place * PLACE_DELAY_MS, state.releasedAt + settings.trimEveryMs)
    if (now < dueAt) { wake(dueAt); return }
    this.#ask(view, shard, seen, terms)
  }

  /** Somebody wants to let go of a shard: does this node keep its own? Whoever has none to let go of would only keep this node from letting go. */
  requested (from: string, { id, model, shard }: Extract<ReplicaMessage, { type: 'release' }>): void {
    const { views, draining, now, ports, settled } = this.#context
    const view = views.get(model)
    const state = view?.states[shard]
    const ok = view?.own[shard] === Own.Committed && state !== undefined && view.claims.get(from)?.committed.has(shard) === true && !draining && settled && !this.#byShard.has(key(view, shard)) && !this.#misses(view, shard, from)
    if (ok) state.keepUntil = now + KEEP_PROMISE_MS
    ports.send(from, { type: 'keep', id, model, shard, ok })
  }

  /**
   * Without that peer this node would see too few, and bring back at once what the others then let go of again: beside a cut between
   * two that stays, that would go on for ever. Who drains goes all the same.
   */
  #misses (view: ModelView, shard: number, leaver: string): boolean {
    if (this.#context.peers.get(leaver)?.draining === true) return false
    const { own, proven, claimed } = look(view, shard, this.#context)
    const { settings, now, self } = this.#context
    const judges = proven.filter(peer => peer.id !== leaver)
    // Without the leaver nobody may be left that comes before this node and judges those who are silent here (planner.ts).
    const isJudge = rankOf(view, shard, self, judges) === 0
    const believed = claimed.filter(peer => peer.id !== leaver && !(isJudge && isSilent(peer, settings.graceDefaultMs, now)))
    return judges.length + believed.length + (own ? 1 : 0) < view.policy.target
  }

  answered (from: string, { id, ok }: Extract<ReplicaMessage, { type: 'keep' }>): void {
    const asking = this.#asking.get(id)
    if (asking === undefined || !asking.asked.delete(from)) return
    if (ok) asking.agreed.add(from)
    else if (!asking.drain) { this.#refused(asking); return }
    // Of a surplus all are heard: what one of them would miss it would bring back.
    if (asking.drain || asking.asked.size === 0) this.#decide(asking)
  }

  expire (): void {
    const { now, wake } = this.#context
    for (const asking of this.#asking.values()) {
      if (now - asking.sentAt < ANSWER_TIMEOUT_MS) { wake(asking.sentAt + ANSWER_TIMEOUT_MS); continue }
      asking.asked.clear()
      this.#decide(asking)
    }
  }

  /** True while this node waits to hear whether it may let go. */
  asks (view: ModelView, shard: number): boolean { return this.#byShard.has(key(view, shard)) }

  /** Lets go if enough have promised; gives up if nobody is left to answer. */
  #decide (asking: Asking): void {
    const { view, shard, sentAt, agreed, drain, terms: { others, level } } = asking
    const { now, settings, draining, peers, settled, self } = this.#context
    const claim = (peer: string): boolean => {
      const theirs = view.claims.get(peer)
      return theirs?.committed.has(shard) === true && isProven(theirs, shard, settings.trimProofMs, now) && peers.get(peer)?.liveness === 'alive' && peers.get(peer)?.draining === false
    }
    const sure = [...agreed].filter(claim)
    // The policy may have changed since.
    const isFresh = now - sentAt < DECIDE_MAX_MS
    const enough = isFresh && sure.length >= Math.max(others, view.policy.target) && (level === undefined || sure.some(peer => peers.get(peer)?.domains[level] !== self.domains[level]))
    if (!enough || draining !== drain || peers.brake || !settled) {
      if (asking.asked.size === 0 || !isFresh) this.#end(asking)
      return
    }
    this.#end(asking)
    const state = view.states[shard]
    if (state === undefined || now < state.keepUntil) return
    // Once an hour is what was let go of: a full ledger that kept the promise is asked again before.
    if (!this.#holding.release(view, shard, 'released')) return
    if (!drain) state.releasedAt = now
    this.#rebalance.released(view, shard)
    // Told at once to all who counted on it, in the next state.
    this.#context.touch(view)
  }

  #refused (asking: Asking): void {
    const { now, random } = this.#context
    const state = asking.view.states[asking.shard]
    if (state !== undefined) state.surplusAgainAt = now + Math.min(AGAIN_MAX_MS, AGAIN_MS * 2 ** state.refusals++) * (1 + random.next())
    this.#end(asking)
  }

  #ask (view: ModelView, shard: number, seen: ShardLook, terms: Terms): void {
    const { now, random, ports, settings, wake, draining: drain } = this.#context
    const state = view.states[shard]
    if (state === undefined || this.#byShard.has(key(view, shard))) return
    // A drain does not wait for what a surplus has been told.
    const againAt = Math.max(drain ? state.drainAgainAt : state.surplusAgainAt, state.keepUntil)
    if (now < againAt) { wake(againAt); return }
    const fresh = seen.proven.filter(peer => {
      const claim = view.claims.get(peer.id)
      return claim !== undefined && isProven(claim, shard, settings.trimProofMs, now)
    })
    if (fresh.length < terms.others) {
      for (const peer of seen.proven) if (!fresh.includes(peer)) this.#proofs.hurry(view, shard, peer)
      wake(now + 1_000)
      return
    }
    const id = exchangeId(random)
    const asking: Asking = { id, view, shard, sentAt: now, asked: new Set(fresh.map(peer => peer.id)), agreed: new Set(), drain, terms }
    this.#asking.set(id, asking)
    this.#byShard.set(key(view, shard), asking)
    if (drain) state.drainAgainAt = now + DRAIN_AGAIN_MS * (1 + random.next())
    else state.surplusAgainAt = now + AGAIN_MS * (1 + random.next())
    wake(now + ANSWER_TIMEOUT_MS)
    for (const peer of fresh) ports.send(peer.id, { type: 'release', id, model: view.cid, shard })
  }

  #end (asking: Asking): void {
    this.#asking.delete(asking.id)
    this.#byShard.delete(key(asking.view, asking.shard))
    this.#context.touch(asking.view)
  }
}

function key (view: ModelView, shard: number): string { return `${view.cid}/${shard}` }
