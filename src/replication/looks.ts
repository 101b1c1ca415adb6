import { REPLICA_LOOKS_MAX } from '../base/index.ts'
import type { Circle } from './circle.ts'
import type { Context } from './context.ts'
import type { ModelView } from './model-view.ts'
import type { Task } from './offers.ts'
import type { Proofs } from './proofs.ts'
import type { Rebuild } from './rebuild.ts'
import { ShardCount, weightOf } from './report.ts'
import type { States } from './states.ts'
import type { Upkeep } from './upkeep.ts'

/** What nothing has changed of and nothing is due of is looked at again after this long all the same. */
const IDLE_LOOK_MS = 10 * 60_000
/** What was found lacking is looked at again after this long: those who were asked for their space have answered. */
const LACKING_LOOK_MS = 2_000
/** Of a model of very many holders so many shards are looked at together at least. */
const SHARDS_MIN = 16

export interface LooksComponents { circle: Circle, proofs: Proofs, upkeep: Upkeep, rebuild: Rebuild, states: States }

/**
 * Which models a tick looks at: those that something has changed of or something is due of, as far as the bound goes, and as far as the same bound goes for
 * each second others in turn, for what changes with time alone. So a node of few models looks at all of them each time. Of what is left for the next ticks
 * half goes to those with the fewest replicas, and half goes round.
 */
export class Looks {
  readonly #context: Context
  readonly #components: LooksComponents
  readonly #max: number
  /** Looks at others that are left of this second's. */
  #spare = 0
  #sparedAt = -Infinity
  #views: ModelView[] = []
  /** Where the rounds of what is due and of the others go on. */
  #dueTurn = 0
  #otherTurn = 0
  #left = 0
  #isBehind = false
  #ticks = 0

  constructor (context: Context, components: LooksComponents, max = REPLICA_LOOKS_MAX) {
    this.#context = context
    this.#components = components
    this.#max = max
  }

  /** Something is due, and was left for the next tick. */
  get isBehind (): boolean { return this.#isBehind }

  tick (tasks: Task[]): void {
    const { now, views, wake } = this.#context
    this.#spare = Math.min(this.#max, this.#spare + Math.max(0, now - this.#sparedAt) / 1_000 * this.#max)
    this.#sparedAt = now
    this.#left = this.#max
    this.#ticks++
    // Of what is not here and was only offered nothing is to be looked after.
    this.#views = [...views.values()].filter(view => !view.isForeign)
    this.#lookAtAll(tasks)
    this.#isBehind = false
    for (const view of this.#views) {
      if (isDue(view, now)) this.#isBehind = true
      else wake(view.lookAt)
    }
    if (this.#isBehind) wake(now)
    // What changes with time alone is not left for long.
    if (this.#spare <= 0) wake(now + 1_000)
  }

  /** Once it is decided what becomes of the tasks. */
  settle (tasks: readonly Task[]): void {
    const { now } = this.#context
    for (const { view, shard, need } of tasks) {
      const dueAt = Math.max(need.dueAt, view.states[shard]?.offerAt ?? -Infinity)
      view.wake(dueAt > now ? dueAt : now + LACKING_LOOK_MS)
      this.#context.wake(view.lookAt)
    }
  }

  #lookAtAll (tasks: Task[]): void {
    const { now } = this.#context
    if (this.#views.reduce((sum, view) => sum + costOf(view), 0) <= Math.min(this.#left, this.#spare)) {
      for (const view of this.#views) {
        this.#spare -= costOf(view)
        this.#look(view, this.#left, tasks)
      }
      return
    }
    const due = this.#views.filter(view => isDue(view, now))
    if (due.reduce((sum, view) => sum + costOf(view), 0) > this.#left) {
      const urgent = due.filter(view => view.fewest < Infinity).sort((a, b) => a.fewest - b.fewest)
      for (const view of urgent) {
        if (this.#left <= this.#max / 2) break
        this.#look(view, this.#left - this.#max / 2, tasks)
      }
    }
    this.#dueTurn = this.#goRound(this.#dueTurn, view => {
      if (isDue(view, now)) this.#look(view, this.#left, tasks)
      return this.#left > 0
    })
    this.#otherTurn = this.#goRound(this.#otherTurn, view => {
      if (this.#spare <= 0 || this.#left <= 0) return false
      if (isDue(view, now)) return true
      this.#spare -= costOf(view)
      this.#look(view, this.#left, tasks)
      return true
    })
  }

  /** Each that was not looked at in this tick, from there on, while there is room. Returns where the next goes on. */
  #goRound (from: number, look: (view: ModelView) => boolean): number {
    const views = this.#views
    for (let at = 0; at < views.length; at++) {
      const view = views[(from + at) % views.length]
      if (view !== undefined && view.lookedIn !== this.#ticks && !look(view)) return (from + at) % views.length
    }
    return from
  }

  /** Looks at a model, or at as many of its shards as there is room for. */
  #look (view: ModelView, room: number, tasks: Task[]): void {
    const { circle, proofs, upkeep, rebuild, states } = this.#components
    const context = this.#context
    const from = view.lookedTo
    const isFirst = from === 0
    const to = Math.min(view.shards, from + Math.max(SHARDS_MIN, Math.floor(room / weightOf(view))))
    context.looking = view
    try {
      if (isFirst) {
        view.lookAt = context.now + IDLE_LOOK_MS
        states.sift(view)
        circle.sift(view)
        if (view.policy.target > 0 || rebuild.awaits(view)) circle.find(view)
      }
      view.lookedIn = this.#ticks
      if (view.policy.target === 0) {
        view.lookedTo = 0
        this.#left -= weightOf(view)
        return
      }
      this.#left -= (to - from) * weightOf(view)
      const counting = view.counting = isFirst || view.counting === undefined ? new ShardCount() : view.counting
      const before = tasks.length
      proofs.tick(view, from, to)
      upkeep.look(view, tasks, { from, to, seen: (shard, seen) => { counting.add(view, shard, seen, context) } })
      for (let at = before; at < tasks.length; at++) counting.fewest = Math.min(counting.fewest, tasks[at]?.look.replicas ?? Infinity)
      view.fewest = to < view.shards ? Math.min(view.fewest, counting.fewest) : counting.fewest
      view.lookedTo = to < view.shards ? to : 0
      if (view.lookedTo === 0) view.count = counting
    } catch (error) {
      view.lookedTo = 0
      view.lookAt = -Infinity
      throw error
    } finally {
      context.looking = undefined
    }
  }
}

/** Something has changed, its time has come, or its look is not over. */
function isDue ({ lookedTo, lookAt }: ModelView, now: number): boolean { return lookedTo > 0 || lookAt <= now }

function costOf (view: ModelView): number { return view.policy.target === 0 ? weightOf(view) : (view.shards - view.lookedTo) * weightOf(view) }
