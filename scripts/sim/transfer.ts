import { MiB } from '../../src/base/index.ts'
import type { PullJob } from '../../src/replication/types.ts'
import type { SimNode } from './node.ts'
import { SECOND, keyOf, type Key, type SimModel } from './types.ts'
import type { World } from './world.ts'

/** A source that stops sending is given up after this. */
const STALL_MS = 30 * SECOND
const NO_SOURCE_MS = 5 * SECOND
/** Largest block: what comes of a bad one is for nothing. */
const BLOCK_BYTES = 4 * MiB

export interface Pull {
  node: SimNode
  life: number
  model: SimModel
  shard: number
  key: Key
  bytes: number
  sources: number[]
  urgent: boolean
  source: number | undefined
  /** Of all its tries, and whom it tried. */
  startedFirstAt: number
  tried: number[]
  /** A source went behind a cut. */
  wasCut: boolean
  startedAt: number
  takesMs: number
  /** Of the present try. */
  bytesLeft: number
  /** Verified, from its beginning on: what a source had right before its first bad block. */
  bytesHere: number
  /** Counts tries, so that the end of an earlier one is recognized. */
  attempt: number
  ended: boolean
}

/** Moves shards in simulated time; whatever was moved is counted, also when it was for nothing. */
export class Transfers {
  readonly active = new Set<Pull>()
  readonly #world: World

  constructor (world: World) { this.#world = world }

  pull (node: SimNode, job: PullJob): void {
    const world = this.#world
    const model = world.modelOf(job.model)
    const bytes = model?.shardBytes[job.shard]
    if (model === undefined || bytes === undefined) throw new Error(`pull of ${job.model}/${job.shard}, which does not exist`)
    const key = keyOf(model.index, job.shard)
    const sources = job.from.map(id => world.nodeOf(id)?.index).filter(index => index !== undefined && index !== node.index) as number[]
    const pull: Pull = { node, life: node.life, model, shard: job.shard, key, bytes, sources, urgent: job.urgent, source: undefined, startedFirstAt: world.now, tried: [], wasCut: false, startedAt: world.now, takesMs: 0, bytesLeft: bytes, bytesHere: 0, attempt: 0, ended: false }
    this.cancel(node, key)
    node.parts.fit()
    world.checks.bytes.starts(pull)
    if (!node.disk.committed.has(key)) node.volume.takes(key, `${model.cid}/${job.shard}`)
    this.active.add(pull)
    node.pulls.set(key, pull)
    this.#next(pull)
  }

  cancel (node: SimNode, key: Key): void {
    const pull = node.pulls.get(key)
    if (pull !== undefined) this.#breakOff(pull)
  }

  cancelAll (node: SimNode): void {
    for (const pull of node.pulls.values()) this.#breakOff(pull)
  }

  /** Sources that cannot be heard any more stop sending. */
  refresh (): void {
    for (const pull of this.active) {
      if (pull.source === undefined || this.#world.network.good(pull.node.index, pull.source)) continue
      this.#count(pull)
      pull.wasCut ||= this.#world.network.hidden(pull.node.index, pull.source, this.#world.now) !== undefined
      pull.source = undefined
      this.#later(pull, STALL_MS, () => { this.#next(pull) })
    }
  }

  /** A node became slower or faster: what is left of its transfers takes accordingly long. */
  speedChanged (node: SimNode): void {
    for (const pull of this.active) {
      const source = this.#world.nodes[pull.source ?? -1]
      if (source === undefined || (pull.node !== node && source !== node)) continue
      this.#count(pull)
      this.#run(pull, source)
    }
  }

  #later (pull: Pull, ms: number, run: () => void): void {
    const attempt = ++pull.attempt
    this.#world.queue.after(ms, () => {
      if (pull.ended || pull.attempt !== attempt) return
      if (pull.node.hung) pull.node.inbox.push(() => { if (!pull.ended && pull.attempt === attempt) run() })
      else run()
    })
  }

  #next (pull: Pull): void {
    const { node } = pull
    let source
    while (source === undefined && pull.sources.length > 0) {
      const index = pull.sources.shift() as number
      const other = this.#world.nodes[index]
      if (other !== undefined && this.#world.network.good(node.index, index) && other.disk.has(pull.key)) source = other
    }
    if (source === undefined) {
      this.#later(pull, NO_SOURCE_MS, () => { this.#finish(pull, false) })
      return
    }
    pull.source = source.index
    pull.tried.push(source.index)
    const bad = firstBad(source, pull)
    pull.bytesLeft = Math.min(pull.bytes, bad === undefined ? Infinity : bad + BLOCK_BYTES) - pull.bytesHere
    this.#run(pull, source)
  }

  #run (pull: Pull, source: SimNode): void {
    const { node } = pull
    let rate = Math.min(source.bytesPerSecond, node.bytesPerSecond)
    if (!pull.urgent) rate = Math.min(rate, node.settings.repairBytesPerSecond)
    pull.startedAt = this.#world.now
    pull.takesMs = 50 + pull.bytesLeft / rate * SECOND * node.pulls.size
    this.#later(pull, pull.takesMs, () => { this.#arrived(pull) })
  }

  #arrived (pull: Pull): void {
    const { node, key } = pull
    this.#count(pull)
    const source = this.#world.nodes[pull.source ?? -1]
    pull.source = undefined
    if (source?.disk.has(key) !== true) {
      this.#next(pull)
      return
    }
    // A wrong block is seen by its hash when it is here (transfer/reception.ts): what came before it stays, another source is asked for the rest.
    const bad = firstBad(source, pull)
    if (bad !== undefined) {
      pull.bytesHere = bad
      this.#next(pull)
      return
    }
    if (node.disk.free < pull.bytes && !node.makeRoom(pull.bytes)) {
      this.#finish(pull, false)
      return
    }
    node.disk.write(key, pull.bytes)
    node.disk.pulled.set(key, this.#world.now)
    if (node.lies) node.disk.rot(key, this.#world.now)
    this.#finish(pull, true)
  }

  #count (pull: Pull): void {
    const share = pull.takesMs === 0 ? 1 : Math.min(1, (this.#world.now - pull.startedAt) / pull.takesMs)
    const bytes = Math.round(share * pull.bytesLeft)
    pull.bytesLeft -= bytes
    this.#world.checks.bytes.moved(pull, bytes)
  }

  #finish (pull: Pull, ok: boolean): void {
    this.#end(pull)
    pull.node.pulled(pull.model, pull.shard, ok)
    this.#world.checks.bytes.ends(pull, ok)
  }

  #breakOff (pull: Pull): void {
    if (pull.ended) return
    this.#end(pull)
    this.#world.checks.bytes.ends(pull, undefined)
  }

  #end (pull: Pull): void {
    if (pull.ended) return
    if (pull.source !== undefined) this.#count(pull)
    pull.source = undefined
    pull.ended = true
    this.active.delete(pull)
    pull.node.pulls.delete(pull.key)
  }
}

/** Where the first bad block begins that this source would send; undefined: it has all that is lacking. */
function firstBad (source: SimNode, { key, bytes, bytesHere }: Pull): number | undefined {
  const share = source.disk.badAt(key)
  if (share === undefined) return undefined
  const at = Math.floor(share * bytes / BLOCK_BYTES) * BLOCK_BYTES
  return at < bytesHere ? undefined : at
}
