import { MiB } from '../../src/base/index.ts'
import { defaultReplication as intended } from '../../src/replication/settings.ts'
import { VolumeTrust } from '../../src/replication/volume-trust.ts'
import type { SimNode } from './node.ts'
import { SECOND, type Key } from './types.ts'
import type { World } from './world.ts'

/** What a scrub on probation reads, as in scrubber.ts. */
const BYTES_PER_MS = 64 * MiB / SECOND
/** A node acts on what its scrub found at its next tick. */
const ACTS_MS = 15 * SECOND

/** The scrub of one machine, told what it finds, with the real judgement of the volume (volume-trust.ts); and what the checks expect of that. */
export class Volume {
  readonly #world: World
  readonly #node: SimNode
  #trust = new VolumeTrust(undefined, Infinity)
  #places = 0
  #unsaved = false
  /** Since when it has to be suspect. */
  #expectedSince: number | undefined
  #onProbation = false

  constructor (world: World, node: SimNode) {
    this.#world = world
    this.#node = node
  }

  get suspect (): boolean { return this.#trust.suspect }

  /** Found in one pass, eight bad places have to be acted on. */
  get suspectFor (): number { return this.#expectedSince === undefined ? 0 : this.#world.now - this.#expectedSince }

  starts (): void {
    const world = this.#world
    if (!world.faults.includes('bad-volume')) return
    const { disk, settings } = this.#node
    const plant = world.plant?.suspectSince
    this.#trust = new VolumeTrust(plant === undefined ? disk.suspectSince : plant(disk.suspectSince), settings.scrubSuspectBlocks)
    this.#expectedSince = disk.suspectSince === undefined ? undefined : world.now
    this.#onProbation = disk.suspectSince !== undefined
    this.#unsaved = false
    this.#pass(this.#node.life)
  }

  /** The scrub found something bad. */
  found (): void {
    const { now } = this.#world
    this.#places++
    if (this.#trust.found(this.#places, now)) this.#unsaved = true
    if (this.#places >= intended.scrubSuspectBlocks) this.#expectedSince ??= now
  }

  /** Before each tick of the replicator. */
  tick (): void {
    const { disk, readOnly } = this.#node
    if (!this.#unsaved || readOnly) return
    disk.suspectSince = this.#trust.suspectSince
    this.#unsaved = false
  }

  /** After it. */
  check (): void {
    const { name, replicator } = this.#node
    if (this.suspectFor > ACTS_MS && replicator?.draining === false) this.#world.checks.fail('a suspect volume is drained', `${name} found ${this.#places} bad places in one pass, or did so before its restart, and does not drain`)
  }

  /** It is about to fetch something new. */
  takes (key: Key, what: string): void {
    if (this.suspectFor > ACTS_MS) this.#world.checks.fail('a suspect volume takes nothing', `${this.#node.name} fetches ${what}`, key)
  }

  #pass (life: number): void {
    const { queue, trace } = this.#world
    const node = this.#node
    this.#places = 0
    queue.after(this.#onProbation ? SECOND + node.disk.used / BYTES_PER_MS : node.settings.scrubPeriodMs, () => {
      if (node.life !== life) return
      if (!node.works) { this.#pass(life); return }
      for (const key of node.disk.keys()) if (this.#onProbation && !node.lies && !node.disk.right(key)) node.finds(key)
      if (this.#onProbation && this.#places === 0) {
        this.#expectedSince = undefined
        if (trace.keeps) this.#world.line(undefined, `${node.name} has found nothing bad since its restart`)
      }
      this.#onProbation = false
      if (this.#trust.passed(this.#places)) this.#unsaved = true
      this.#pass(life)
    })
  }
}
