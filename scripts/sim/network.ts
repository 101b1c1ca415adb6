import { randomInt, type Random } from '../../src/base/index.ts'
import type { ReplicaMessage } from '../../src/replication/types.ts'
import type { SimNode } from './node.ts'
import { HOUR, MINUTE, SECOND, keyOf } from './types.ts'
import type { World } from './world.ts'

const MESSAGE_TYPES = ['state', 'ask', 'seen', 'offer', 'accept', 'decline', 'commit', 'abandon', 'challenge', 'proof', 'disproved', 'release', 'keep']
/** Per node-hour; twenty times what a busy swarm needs. */
const MESSAGES_MAX = 10_000
/** Shorter than this and two that were cut off from each other have not told each other everything. */
const TOGETHER_MS = MINUTE
/** Calls and messages that a frozen process has waiting for it; the sockets hold no more. */
const INBOX_MAX = 10_000

/**
 * Who hears whom. Pings are not simulated: when a pair stops hearing each other is noted as it happens, so an idle
 * hour costs nothing.
 */
export class Network {
  lossShare = 0
  /** When messages last got lost. */
  lossyUntil = -Infinity
  reorderMs = 0
  replayShare = 0
  readonly #world: World
  readonly #random: Random
  readonly #faultRandom: Random
  readonly #size: number
  /** Row hears column: 1 while both ways are open and both processes run. */
  readonly #good: Uint8Array
  readonly #ceasedAt: Float64Array
  readonly #messageAt: Float64Array
  /** Cuts from row to column; several faults may cut the same. */
  readonly #cuts: Uint8Array
  /** Pairs that a cut kept apart: since when, and until when; Infinity: it still does. */
  readonly #apart = new Map<number, { since: number, until: number }>()

  constructor (world: World, size: number, random: Random, faultRandom: Random) {
    this.#world = world
    this.#size = size
    this.#random = random
    this.#faultRandom = faultRandom
    this.#good = new Uint8Array(size * size)
    this.#ceasedAt = new Float64Array(size * size).fill(-1)
    this.#messageAt = new Float64Array(size * size).fill(-1)
    this.#cuts = new Uint8Array(size * size)
  }

  good (a: number, b: number): boolean { return this.#good[a * this.#size + b] === 1 }

  /** Undefined: not in this life of `a`. */
  heardAt (a: SimNode, b: number): number | undefined {
    const at = a.index * this.#size + b
    let heard = this.#messageAt[at] as number
    if (a.watched.has(b)) heard = Math.max(heard, this.#good[at] === 1 ? this.#world.now : this.#ceasedAt[at] as number)
    return heard < a.startedAt ? undefined : heard
  }

  /** When `to` last had a message of `from`, also one that was replayed when that had died. */
  messageFrom (to: number, from: number): number { return this.#messageAt[to * this.#size + from] as number }

  /** They heard each other at `since` or later. */
  reached (a: number, b: number, since: number): boolean {
    const apart = this.#apart.get(this.#pair(a, b))
    return apart === undefined || apart.until !== Infinity || apart.since >= since
  }

  cut (from: number, to: number, on: boolean): void {
    const at = from * this.#size + to
    this.#cuts[at] = Math.max(0, (this.#cuts[at] as number) + (on ? 1 : -1))
    const pair = this.#pair(from, to)
    const apart = this.#apart.get(pair)
    const { now } = this.#world
    if (this.isCut(from, to) || this.isCut(to, from)) {
      if (apart === undefined) this.#apart.set(pair, { since: now, until: Infinity })
      // A short while together does not make up for it.
      else if (apart.until !== Infinity) this.#apart.set(pair, { since: now - apart.until < TOGETHER_MS ? apart.since : now, until: Infinity })
    } else if (apart?.until === Infinity) {
      apart.until = now
    }
  }

  /** Since when the two have been kept apart by a cut; undefined: they are not, and were not after `after`. */
  hidden (a: number, b: number, after: number): number | undefined {
    if (this.#apart.size === 0) return undefined
    const apart = this.#apart.get(this.#pair(a, b))
    return apart === undefined || apart.until < after ? undefined : apart.since
  }

  #pair (a: number, b: number): number { return a < b ? a * this.#size + b : b * this.#size + a }

  isCut (from: number, to: number): boolean { return this.#cuts[from * this.#size + to] !== 0 }

  /** After every change of who runs and what is cut. */
  refresh (): void {
    const { nodes, now } = this.#world
    for (const a of nodes) {
      for (const b of nodes) {
        if (a === b) continue
        const at = a.index * this.#size + b.index
        const good = a.answers && b.answers && !this.isCut(a.index, b.index) && !this.isCut(b.index, a.index) ? 1 : 0
        if (good === this.#good[at]) continue
        if (good === 0) this.#ceasedAt[at] = now
        this.#good[at] = good
      }
    }
    this.#world.transfers.refresh()
  }

  send (from: SimNode, to: SimNode, message: ReplicaMessage): void {
    const { world, random } = { world: this.#world, random: this.#random }
    if (++world.stats.messages > MESSAGES_MAX * this.#size * Math.max(1, world.options.hours, world.now / HOUR)) world.checks.fail('nobody talks without end', `${from.name} sends ${to.name} message ${world.stats.messages}, a ${message.type}`)
    world.trace.mix(from.index << 16 | to.index << 8 | MESSAGE_TYPES.indexOf(message.type))
    if ('shard' in message) world.trace.mix(message.shard)
    if (world.trace.keeps) this.#traceMessage(from, to, message)
    // Drawn for every message, so that what happens to one does not shift the others.
    const latency = 2 + random.next() * 60
    const lost = this.#faultRandom.next() < this.lossShare
    const late = this.#faultRandom.next()
    const twice = this.#faultRandom.next() < this.replayShare
    if (lost || !to.running || this.isCut(from.index, to.index)) return
    const copy = copyOf(message)
    const delay = latency + from.lagMs + to.lagMs + (late < 0.3 ? late / 0.3 * this.reorderMs : 0)
    world.queue.after(delay, () => { this.#deliver(from, to, copy) })
    if (twice) world.queue.after(delay + randomInt(this.#faultRandom, 10 * MINUTE), () => { this.#deliver(from, to, copyOf(copy)) })
  }

  #deliver (from: SimNode, to: SimNode, message: ReplicaMessage): void {
    if (!to.running || to.wedged || this.isCut(from.index, to.index)) return
    if (to.hung) {
      if (to.inbox.length < INBOX_MAX) to.inbox.push(() => { this.#deliver(from, to, message) })
      return
    }
    this.#messageAt[to.index * this.#size + from.index] = this.#world.now
    to.receive(from, message)
  }

  #traceMessage (from: SimNode, to: SimNode, message: ReplicaMessage): void {
    if (!('shard' in message)) {
      if (message.type === 'ask' || message.type === 'seen') this.#world.line(undefined, `${from.name} -> ${to.name} ${message.type}${message.type === 'seen' ? ` ${message.peer} ${Math.round(message.ageMs / SECOND)} s` : ` ${message.peer}`}`)
      return
    }
    const model = this.#world.modelOf(message.model)
    const extra = message.type === 'decline' ? ` ${message.reason}` : message.type === 'keep' ? ` ${message.ok ? 'yes' : 'no'}` : ''
    this.#world.line(model === undefined ? undefined : keyOf(model.index, message.shard), `${from.name} -> ${to.name} ${message.type} ${message.model}/${message.shard}${extra}`)
  }
}

/** What travels is bytes: nothing of the sender's state may be shared with the receiver. */
function copyOf (message: ReplicaMessage): ReplicaMessage {
  switch (message.type) {
    case 'state':
      return {
        ...message,
        labels: { ...message.labels },
        models: message.models.map(claim => ({ ...claim, policies: [...claim.policies], committed: claim.committed.slice(), pending: claim.pending.slice(), cached: claim.cached.slice(), members: [...claim.members] }))
      }
    case 'offer': return { ...message, policies: [...message.policies], holders: [...message.holders] }
    case 'challenge': return { ...message, shards: [...message.shards], nonce: message.nonce.slice() }
    case 'proof': return { ...message, digests: message.digests.map(digest => digest.slice()) }
    default: return { ...message }
  }
}
